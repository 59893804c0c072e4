"""One HTML page per pruning run or sweep: self-contained, readable without colour and without a mouse."""
