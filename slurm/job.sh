#!/usr/bin/env bash
# The part of a job that runs once, on its first node: job.sh RUN.toml [--section.key VALUE ...]
# It starts node.sh on every node, hands the warning before the time limit on, and goes by RUN_DIR/status.json:
# a run that stopped early with a checkpoint goes back into the queue and continues.
#
#   FTSYS_VENV=FOLDER       virtual environment; default: the active one at sbatch, else .venv beside slurm/
#   FTSYS_DEVICE=cpu        compute on CPUs, also where the allocation has GPUs
#   FTSYS_MAX_RESTARTS=N    how often the job may go back into the queue (default 10)
#   FTSYS_CACHE=FOLDER      where stores and models lie, on a shared disk
#   FTSYS_INSIDE=WORDS      what goes before every Python command, such as `apptainer exec --nv IMAGE`
#   FTSYS_SRUN=WORDS        more options of srun, such as --container-image=IMAGE
#   FTSYS_PYTHON=PROGRAM    the Python inside of a container
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
restarts=${SLURM_RESTART_COUNT:-0}
most=${FTSYS_MAX_RESTARTS:-10}
read -ra inside <<< "${FTSYS_INSIDE:-}"
read -ra srun_words <<< "${FTSYS_SRUN:-}"
python=${FTSYS_PYTHON:-${FTSYS_VENV:-${VIRTUAL_ENV:-$here/../.venv}}/bin/python}
export FTSYS_PYTHON=$python HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1 PYTHONUNBUFFERED=1

refuse() {
  echo "error: $*" >&2
  exit 2
}

# One task on each node of the allocation.
step=(srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1)
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then step+=(--cpus-per-task="$SLURM_CPUS_PER_TASK"); fi

ask() { # what Python knows better; launcher/slurm/in_job.py answers
  if [ ${#srun_words[@]} -gt 0 ]; then
    srun --nodes=1 --ntasks=1 "${srun_words[@]}" "${inside[@]}" "$python" -m launcher.slurm.in_job "$@"
  else
    "${inside[@]}" "$python" -m launcher.slurm.in_job "$@"
  fi
}

address_of() { # as SLURM itself reaches the node, so no name server is needed
  scontrol show node "$1" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p'
}

if [ -z "${FTSYS_INSIDE:-}${FTSYS_SRUN:-}" ] && ! command -v "$python" > /dev/null; then
  refuse "there is no virtual environment: '$python' is missing. Make one with \`make install\`, or set FTSYS_VENV."
fi
if [ "$restarts" -gt "$most" ]; then
  refuse "restart limit reached: job $SLURM_JOB_ID was restarted $restarts times, FTSYS_MAX_RESTARTS is $most."
fi

# Another port in each life: ranks of a former one that were cut off and live on never meet the new ones.
answer=$(ask job "$SLURM_JOB_ID-$restarts" "$@") || exit 2
{ read -r FTSYS_DEVICE && read -r FTSYS_RUN_DIR && read -r MASTER_PORT && read -r before; } <<< "$answer"
# A rank for each GPU that SLURM gave the node; one CPU rank where it gave none.
FTSYS_GPUS=${SLURM_GPUS_ON_NODE:-0}
if [ "$FTSYS_DEVICE" = cuda ] && [ "$FTSYS_GPUS" = 0 ]; then
  refuse "no GPUs in the allocation: sbatch --gpus-per-node=N, or set FTSYS_DEVICE=cpu to compute on CPUs."
fi
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
MASTER_ADDR=$(address_of "${nodes[0]}")
FTSYS_PEER=$(address_of "${nodes[1]:-${nodes[0]}}")
export FTSYS_DEVICE FTSYS_GPUS FTSYS_RUN_DIR FTSYS_PEER MASTER_ADDR MASTER_PORT

# Whose the run folder is. Two jobs at once would take it from each other.
owner=$FTSYS_RUN_DIR/logs/slurm-job
former=$(cat "$owner" 2> /dev/null || true)
if [[ $former =~ ^[0-9]+$ ]] && [ "$former" != "$SLURM_JOB_ID" ]; then
  state=$(squeue --noheader --jobs "$former" --format %T 2> /dev/null || true)
  case $state in
    RUNNING | SUSPENDED | COMPLETING | CONFIGURING)
      refuse "run folder '$FTSYS_RUN_DIR' belongs to job $former ($state): name another output_dir, or wait."
      ;;
  esac
fi
mkdir -p "$FTSYS_RUN_DIR/logs"
echo "$SLURM_JOB_ID" > "$owner.$SLURM_JOB_ID"
mv "$owner.$SLURM_JOB_ID" "$owner"
log=$FTSYS_RUN_DIR/logs/slurm-$SLURM_JOB_ID.log # where `ftlaunch logs` looks
[ -e "$log" ] || ln -s "$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *StdOut=//p')" "$log"

"${step[@]}" "${srun_words[@]}" "${inside[@]}" bash "$here/node.sh" check || exit 2

told=""
ranks=$((FTSYS_GPUS > 0 ? FTSYS_GPUS : 1))
echo "job $SLURM_JOB_ID, life $((restarts + 1)): ${#nodes[@]} node(s) x $ranks $FTSYS_DEVICE rank(s), $FTSYS_RUN_DIR"
"${step[@]}" --kill-on-bad-exit=1 "${srun_words[@]}" "${inside[@]}" bash "$here/node.sh" run "$@" &
running=$!
trap 'told=yes; kill -USR1 $running' USR1
trap 'told=yes' TERM # SLURM has told the ranks itself
status=0
wait $running || status=$?
while kill -0 $running 2> /dev/null; do # a trap ends `wait`, not srun
  status=0
  wait $running || status=$?
done

ours() { # is this life still the one that SLURM runs? A cut-off one must not speak for the job
  local job
  job=$(scontrol --oneliner show job "$SLURM_JOB_ID") || return 1
  [[ $job == *" JobState=RUNNING "* && $job == *" Restarts=$restarts "* ]]
}

requeue() { # requeue WHY
  if [ "$restarts" -ge "$most" ]; then
    echo "error: restart limit reached (FTSYS_MAX_RESTARTS=$most): $1. Submit again to go on." >&2
    exit "$status"
  fi
  echo "$1: job $SLURM_JOB_ID goes back into the queue"
  scontrol requeue "$SLURM_JOB_ID"
}

written=$(ask outcome "$before")
if [ -z "$written" ] && [ -n "$told" ]; then written=75; fi # told before training began: nothing is lost
status=${written:-$status}
case $status in
  0 | 2 | 77) ;;
  75) ! ours || requeue "stopped early with a checkpoint" ;;
  *) # a rank failed, or its node did
    if ours && ! timeout 60 "${step[@]}" true; then
      requeue "a node does not answer"
    fi
    ;;
esac
exit "$status"
