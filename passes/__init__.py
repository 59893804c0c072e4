"""What a user chooses between: criteria (how much a unit matters) and allocators (how much goes where)."""

from graphprune.passes.allocators import ALLOCATORS as ALLOCATORS
from graphprune.passes.criteria import CRITERIA as CRITERIA
