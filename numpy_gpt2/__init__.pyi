from . import cache as cache
from . import checks as checks
from . import cli as cli
from . import decoding as decoding
from . import evaluation as evaluation
from . import generation as generation
from . import gpt2 as gpt2
from . import hub as hub
from . import inside as inside
from . import interactive as interactive
from . import layers as layers
from . import machine as machine
from . import model as model
from . import page as page
from . import params as params
from . import sampling as sampling
from . import text as text
from . import tokenizer as tokenizer
from . import training as training
from . import weights as weights
from .cache import Past as Past
from .decoding.row import Generation as Generation
from .gpt2 import GPT2 as GPT2
from .gpt2 import init as init
from .gpt2 import load as load
from .gpt2 import save as save
from .inside.patches import patch as patch
from .inside.recorder import Trace as Trace
from .inside.recorder import trace as trace
from .machine.threads import set_threads as set_threads
from .params import HParams as HParams
from .tokenizer import Tokenizer as Tokenizer

__version__: str
__all__: list[str]
