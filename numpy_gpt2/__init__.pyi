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
