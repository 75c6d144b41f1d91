#!/usr/bin/env bash
# Fine-tunes tasks x seeds, with one job of an array for each pair:
#
#   export FTSYS_GLUE_DIR=/path/to/glue
#   sbatch slurm/glue.sh                                                    nine tasks, three seeds
#   FTSYS_GLUE_TASKS="mrpc rte" FTSYS_SEEDS="1 2" sbatch --array=0-3 slurm/glue.sh --train.epochs 5
#   ftsys report runs/glue-ARRAYID/*                                        one table of all results
#
# A task is a GLUE name or the path of a run file. Without FTSYS_GLUE_DIR the synthetic sample is the only task, unless
# FTSYS_GLUE_TASKS names others. The comments in mrpc.sh and job.sh apply here too.
#
#SBATCH --job-name=glue
#SBATCH --array=0-26
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A-%a.log
set -euo pipefail

home=${FTSYS_HOME:-$SLURM_SUBMIT_DIR}
if [ ! -e "$home/slurm/job.sh" ]; then
  echo "error: '$home' is not ftsys's folder: submit from there, or set FTSYS_HOME to it." >&2
  exit 2
fi
if [ -n "${FTSYS_TASKS-}" ] && [ "$FTSYS_TASKS" != alone ]; then
  echo "error: FTSYS_TASKS='$FTSYS_TASKS' is not read any more: name the tasks by FTSYS_GLUE_TASKS." >&2
  exit 2
fi
if [ -n "${FTSYS_GLUE_DIR-}" ]; then known="cola sst2 mrpc stsb qqp mnli qnli rte wnli"; else known=paraphrase; fi
read -ra tasks <<< "${FTSYS_GLUE_TASKS:-$known}"
read -ra seeds <<< "${FTSYS_SEEDS:-1 2 3}"
pairs=$((${#tasks[@]} * ${#seeds[@]}))
if [ "$SLURM_ARRAY_TASK_ID" -ge "$pairs" ]; then
  echo "nothing to do: ${#tasks[@]} task(s) x ${#seeds[@]} seed(s) are --array=0-$((pairs - 1))"
  exit 0
fi

task=${tasks[SLURM_ARRAY_TASK_ID / ${#seeds[@]}]}
seed=${seeds[SLURM_ARRAY_TASK_ID % ${#seeds[@]}]}
case $task in
  *.toml) arguments=("$task") ;;
  paraphrase) arguments=("$home/configs/runs/mrpc.toml" --task.name paraphrase --data.source synthetic) ;;
  *) arguments=("$home/configs/runs/mrpc.toml" --task.name "$task" --data.source "${FTSYS_GLUE_DIR:-hub}") ;;
esac
name=$(basename "$task" .toml)
exec bash "$home/slurm/job.sh" "${arguments[@]}" --train.seed "$seed" \
  --output_dir "runs/glue-$SLURM_ARRAY_JOB_ID/$name-seed-$seed" "$@"
