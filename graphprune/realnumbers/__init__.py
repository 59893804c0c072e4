"""A model of few digits, judged and re-solved as the model in real numbers that it stands for."""
