#!/bin/bash
#SBATCH --job-name=generalist
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --no-kill
#SBATCH --signal=B:TERM@300
# A Ray cluster for the duration of a job, and a sweep on it. Run `sbatch deploy/slurm.sh` from the
# parent of this folder; submit it again to continue. A node that fails does not end the job
# (--no-kill). Five minutes before the time limit the sweep is told to end cleanly, and the job is
# queued again (--signal).
set -euo pipefail
export VENV=${VENV:-/shared/venv}
export PORT=$((20000 + SLURM_JOB_ID % 20000))
export HEAD=${HEAD:-$(hostname -I | cut -d' ' -f1)}
export ADDRESS=$HEAD:$PORT
# Other users of these machines can connect, but are refused without this job's token.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN
# One folder per user; it is short because the paths of sockets must be.
export RAY_TMPDIR=/tmp/ray-$USER

# shellcheck disable=SC2016  # the nodes expand it
srun --no-kill --kill-on-bad-exit=0 bash -c '
    mkdir -p "$RAY_TMPDIR"
    here=(--num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --block)
    if [ "$SLURM_NODEID" = 0 ]; then
        here+=(--head --node-ip-address="$HEAD" --port="$PORT" --include-dashboard=false)
        exec "$VENV/bin/ray" start "${here[@]}" --disable-usage-stats
    fi
    exec "$VENV/bin/ray" start "${here[@]}" --address="$ADDRESS"
' &
cluster=$!
trap 'kill "$cluster" 2>/dev/null || true' EXIT

until (exec 3<>"/dev/tcp/$HEAD/$PORT") 2>/dev/null; do
    kill -0 "$cluster" # fails if Ray did not start: its messages are above
    sleep 2
done

sh "${SWEEP:-deploy/sweep.sh}" &
sweep=$!
trap 'kill -TERM "$sweep"; wait "$sweep" || true; scontrol requeue "$SLURM_JOB_ID"' TERM
wait "$sweep"
