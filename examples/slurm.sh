#!/usr/bin/env bash
# Two nodes with four GPUs each: sbatch examples/slurm.sh dcgan-faces main.2 --pairs 1024
# If it is requeued after a time limit or a failed node, the run resumes from its checkpoints.
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --time=04:00:00
#SBATCH --requeue
set -euo pipefail

head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node 4 \
    --rdzv-backend c10d --rdzv-endpoint "$head_node:29500" --rdzv-id "$SLURM_JOB_ID" \
    examples/many_devices.py "$@"
