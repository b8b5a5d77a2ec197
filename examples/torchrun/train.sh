#!/bin/bash
# Trains one run on several nodes with torchrun. Start it once on every node, with the same arguments:
#
#     NODES=2 NODE=0 ADDRESS=10.0.0.1 examples/torchrun/train.sh backbone=vit   # on the first node, whose address is 10.0.0.1
#     NODES=2 NODE=1 ADDRESS=10.0.0.1 examples/torchrun/train.sh backbone=vit   # on the second node
#
# DEVICES is the number of processes of a node, one for each GPU. The run folder must be on a file system that all nodes share.
# Without any variable, it starts one process for each GPU of this machine.
set -eu

NODES=${NODES:-1}
NODE=${NODE:-0}
ADDRESS=${ADDRESS:-127.0.0.1}
PORT=${PORT:-29500}
DEVICES=${DEVICES:-$(python -c "import torch; print(max(1, torch.cuda.device_count()))")}

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

exec torchrun --nnodes "$NODES" --node-rank "$NODE" --nproc-per-node "$DEVICES" --master-addr "$ADDRESS" --master-port "$PORT" \
    train.py +trainer.num_nodes="$NODES" trainer.devices="$DEVICES" trainer.strategy=ddp "$@"
