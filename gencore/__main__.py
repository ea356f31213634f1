import sys
from gencore import runs
import torch
torch.set_num_threads(1)
for n in sys.argv[1:]:
    if runs.state(n)!="ready":
        r=runs.publish(n); print(n, r.meta["cpu_s"], r.meta["wall_s"], {k:v for k,v in r.metrics.items() if not isinstance(v,list)}, flush=True)
