"""Structured pruning of any ONNX model; see README.md."""

from graphprune.api import PruneResult as PruneResult
from graphprune.api import apply as apply
from graphprune.api import check as check
from graphprune.api import plan as plan
from graphprune.api import prune as prune
from graphprune.check import Difference as Difference
from graphprune.converters import convert as convert
from graphprune.converters.carrying.carry import carry as carry
from graphprune.converters.recovery import RecoverResult as RecoverResult
from graphprune.converters.recovery import recover as recover
from graphprune.errors import GraphPruneError as GraphPruneError
from graphprune.graph import DependencyGraph as DependencyGraph
from graphprune.graph import analyze as analyze
from graphprune.groups import Group as Group
from graphprune.info import info as info
from graphprune.model import Model as Model
from graphprune.model import load as load
from graphprune.plan import Plan as Plan
from graphprune.profile import profile as profile
from graphprune.sweep import sweep as sweep
from graphprune.version import VERSION

__version__ = VERSION
