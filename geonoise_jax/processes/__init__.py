"""Several processes that are one run: who leads, what all agree on, how they start, stop and end together.

Every process runs the same program (jax's multi-controller runtime) and calls what is here in the same order. In one
process all of it is free: nothing is imported, sent or waited for. Decisions travel as JSON through the key-value store
of jax's coordination service, not through the devices: they need no compilation and work before there are devices.
"""

from __future__ import annotations

from geonoise_jax.processes.agreement import PeerError as PeerError
from geonoise_jax.processes.agreement import agreed as agreed
from geonoise_jax.processes.agreement import agreeing as agreeing
from geonoise_jax.processes.agreement import barrier as barrier
from geonoise_jax.processes.agreement import by_lead as by_lead
from geonoise_jax.processes.agreement import count as count
from geonoise_jax.processes.agreement import gathered as gathered
from geonoise_jax.processes.agreement import index as index
from geonoise_jax.processes.agreement import is_lead as is_lead
from geonoise_jax.processes.agreement import neighbours as neighbours
from geonoise_jax.processes.agreement import require_same as require_same
from geonoise_jax.processes.agreement import several as several
from geonoise_jax.processes.arrays import placed as placed
from geonoise_jax.processes.arrays import to_host as to_host
from geonoise_jax.processes.ending import LOST as LOST
from geonoise_jax.processes.ending import crashed as crashed
from geonoise_jax.processes.ending import joined as joined
from geonoise_jax.processes.ending import leave as leave
from geonoise_jax.processes.ending import lost as lost
from geonoise_jax.processes.ending import tell as tell
from geonoise_jax.processes.stopping import SharedStop as SharedStop
