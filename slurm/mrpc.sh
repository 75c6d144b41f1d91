#!/usr/bin/env bash
# Fine-tunes on MRPC, or as a run file says:
#
#   sbatch slurm/mrpc.sh
#   sbatch --nodes=4 --gpus-per-node=8 --cpus-per-task=64 slurm/mrpc.sh configs/runs/other.toml --train.seed 7
#
# Submit it from ftsys's folder, after `make install` there. Options of sbatch win over the lines below; job.sh lists
# more settings. Without a run file, MRPC is read from the folder FTSYS_GLUE_DIR, or replaced by the synthetic sample if
# that is not set. Results: runs/mrpc-JOBID, or the output_dir of the run file.
#
#SBATCH --job-name=mrpc
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --time=01:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

home=${FTSYS_HOME:-$SLURM_SUBMIT_DIR}
if [ ! -e "$home/slurm/job.sh" ]; then
  echo "error: '$home' is not ftsys's folder: submit from there, or set FTSYS_HOME to it." >&2
  exit 2
fi
case ${1-} in
  "" | --*)
    if [ -n "${FTSYS_GLUE_DIR-}" ]; then data=(--data.source "$FTSYS_GLUE_DIR"); else
      data=(--task.name paraphrase --data.source synthetic)
    fi
    set -- "$home/configs/runs/mrpc.toml" --output_dir "runs/mrpc-$SLURM_JOB_ID" "${data[@]}" "$@"
    ;;
esac
exec bash "$home/slurm/job.sh" "$@"
