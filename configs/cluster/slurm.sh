#!/usr/bin/env bash
# What:  one run on SLURM that goes on by itself after its time limit, a preemption or a lost node
# Run:   sbatch configs/cluster/slurm.sh
# Again: the same line goes on with the run, and does nothing once it has ended
#SBATCH --job-name=tell
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --mem-per-cpu=8G
#SBATCH --time=04:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=USR1@90

# As many tasks as GPUs. The folder of the run and the data must be where every node sees them.
PYTHON=.venv/bin/python
RUN=runs/my-task
FIT=(fit -c mine.yaml)

# Below this line nothing needs a change. SLURM sends SIGUSR1 to the tasks 90 seconds before the
# time is over: the step is finished and saved, and the exit code is 138.
code=0
srun "$PYTHON" -m tell_lightning "${FIT[@]}" --folder "$RUN" \
    --trainer.num_nodes="$SLURM_NNODES" --trainer.devices="$SLURM_NTASKS_PER_NODE" || code=$?
if [ "$code" -eq 138 ]; then
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
