from .lightning_callback import LightningCallback as LightningCallback
from .processes import PeerError as PeerError
from .processes import SharedRecorder as SharedRecorder
from .processes import from_rank_0 as from_rank_0
from .processes import record_together as record_together
from .processes import run_together as run_together
from .transformers_callback import TransformersCallback as TransformersCallback
