#!/usr/bin/env bash
# Runs once in a job, on its first node: job.sh RUN.toml [--section.key VALUE ...]
# It starts node.sh on every node and forwards the warning before the time limit. RUN_DIR/status.json decides what
# follows: a run that stopped early with a checkpoint goes back into the queue and continues.
#
#   FTSYS_VENV=FOLDER       virtual environment; default: the active one at sbatch, else .venv next to slurm/
#   FTSYS_DEVICE=cpu        compute on CPUs, even if the allocation has GPUs
#   FTSYS_MAX_RESTARTS=N    how often the job may go back into the queue (default 10)
#   FTSYS_CACHE=FOLDER      folder of stores and models, on a shared disk
#   FTSYS_INSIDE=COMMAND    prefix of every Python command, such as `apptainer exec --nv IMAGE`
#   FTSYS_SRUN=OPTIONS      more options of srun, such as --container-image=IMAGE
#   FTSYS_PYTHON=PROGRAM    the Python inside a container
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# The name of this job for SLURM's commands. To them the number of an array, which one of its tasks has, means all tasks.
job=$SLURM_JOB_ID
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; fi
restarts=${SLURM_RESTART_COUNT:-0}
most=${FTSYS_MAX_RESTARTS:-10}
read -ra inside <<< "${FTSYS_INSIDE:-}"
read -ra srun_options <<< "${FTSYS_SRUN:-}"
python=${FTSYS_PYTHON:-${FTSYS_VENV:-${VIRTUAL_ENV:-$here/../.venv}}/bin/python}
export FTSYS_PYTHON=$python HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1 PYTHONUNBUFFERED=1
# No Python takes modules from the current folder, which may be a downloaded model's; from these scripts' own, it does.
export PYTHONSAFEPATH=1
if [ "$PWD" -ef "$here/.." ] && [ -e "$here/../ftsys/__init__.py" ]; then
  export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
fi

refuse() {
  echo "error: $*" >&2
  exit 2
}

# One task on each node of the allocation, with all CPUs and GPUs of the job there.
step=(srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1)
cpus=${SLURM_CPUS_PER_TASK:-}
if [ -z "$cpus" ]; then # the smallest count in a list such as 64(x2),32: without a count, a step has one CPU
  cpus=$(tr , '\n' <<< "${SLURM_JOB_CPUS_PER_NODE:-}" | sed 's/(.*//' | sort -n | head -n 1)
fi
if [ -n "$cpus" ]; then step+=(--cpus-per-task="$cpus"); fi
# A job may ask for GPUs by task, for other tasks than these.
by_task=${SLURM_GPUS_PER_TASK:-}${SLURM_NTASKS_PER_GPU:-}${SLURM_NTASKS_PER_TRES:-}
if [[ -n $by_task || ${SLURM_TRES_PER_TASK:-} == *gres* ]]; then step+=(--gpus-per-node="${SLURM_GPUS_ON_NODE:-0}"); fi
# srun would read these as what is asked of a step.
unset SLURM_CPUS_PER_GPU SLURM_GPUS_PER_TASK SLURM_GPU_BIND
unset SLURM_NTASKS_PER_GPU SLURM_NTASKS_PER_TRES SLURM_TRES_PER_TASK

ask() { # questions that launcher/slurm/in_job.py answers
  if [ ${#srun_options[@]} -gt 0 ]; then
    srun --nodes=1 --ntasks=1 "${srun_options[@]}" "${inside[@]}" "$python" -P -m launcher.slurm.in_job "$@"
  else
    "${inside[@]}" "$python" -P -m launcher.slurm.in_job "$@"
  fi
}

address_of() { # the address by which SLURM itself reaches the node, so no name server is needed
  scontrol show node "$1" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p'
}

if [ -z "${FTSYS_INSIDE:-}${FTSYS_SRUN:-}" ] && ! command -v "$python" > /dev/null; then
  refuse "there is no virtual environment: '$python' is missing. Make one with \`make install\`, or set FTSYS_VENV."
fi
[[ $most =~ ^[0-9]+$ ]] || refuse "FTSYS_MAX_RESTARTS='$most' is not a number of restarts."
if [ "$restarts" -gt "$most" ]; then
  refuse "restart limit reached: job $job was restarted $restarts times, FTSYS_MAX_RESTARTS is $most."
fi

# Each restart has a port of its own: ranks of an earlier one that were cut off and still run never reach the new ones.
answer=$(ask job "$SLURM_JOB_ID-$restarts" "$@") || exit 2
{ read -r FTSYS_DEVICE && IFS= read -r FTSYS_RUN_DIR && read -r MASTER_PORT && read -r FTSYS_BEFORE; } <<< "$answer"
# One rank for each GPU that SLURM gave the node; one CPU rank if it gave none.
FTSYS_GPUS=${SLURM_GPUS_ON_NODE:-0}
if [ "$FTSYS_DEVICE" = cuda ] && [ "$FTSYS_GPUS" = 0 ]; then
  refuse "no GPUs in the allocation: sbatch --gpus-per-node=N, or set FTSYS_DEVICE=cpu to compute on CPUs."
fi
if [ "$FTSYS_DEVICE" = cuda ] && [ "${SLURM_CPUS_ON_NODE:-$FTSYS_GPUS}" -lt "$FTSYS_GPUS" ]; then
  refuse "$SLURM_CPUS_ON_NODE CPU(s) for $FTSYS_GPUS ranks: sbatch --cpus-per-task=N, $FTSYS_GPUS or more."
fi
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
MASTER_ADDR=$(address_of "${nodes[0]}")
FTSYS_PEER=$(address_of "${nodes[1]:-${nodes[0]}}")
# A rank that refuses its input writes its exit status there, because torchrun turns every status into 1.
FTSYS_EXIT_FILE=$FTSYS_RUN_DIR/logs/slurm-$job.exit
export FTSYS_DEVICE FTSYS_GPUS FTSYS_RUN_DIR FTSYS_BEFORE FTSYS_EXIT_FILE FTSYS_PEER MASTER_ADDR MASTER_PORT
export FTSYS_JOB=$job

# Owner of the run folder: two jobs at once would take it from each other.
owner=$FTSYS_RUN_DIR/logs/slurm-job
former=$(cat "$owner" 2> /dev/null || true)
if [[ $former =~ ^[0-9]+(_[0-9]+)?$ ]] && [ "$former" != "$job" ]; then
  state=$(squeue --noheader --jobs "$former" --format %T 2> /dev/null || true)
  case $state in
    RUNNING | SUSPENDED | COMPLETING | CONFIGURING)
      refuse "run folder '$FTSYS_RUN_DIR' belongs to job $former ($state): name another output_dir, or wait."
      ;;
  esac
fi
mkdir -p "$FTSYS_RUN_DIR/logs"
rm -f "$FTSYS_EXIT_FILE"
echo "$job" > "$owner.$job"
mv "$owner.$job" "$owner"
log=$FTSYS_RUN_DIR/logs/slurm-$job.log # the path that `ftlaunch logs` reads
[ -e "$log" ] || ln -sfn "$(scontrol show job "$job" | sed -n 's/^ *StdOut=//p')" "$log"

"${step[@]}" "${srun_options[@]}" "${inside[@]}" bash "$here/node.sh" check || exit 2

signalled=""
ranks=$((FTSYS_GPUS > 0 ? FTSYS_GPUS : 1))
echo "job $job, restart $restarts: ${#nodes[@]} node(s) x $ranks $FTSYS_DEVICE rank(s), $FTSYS_RUN_DIR"
"${step[@]}" --kill-on-bad-exit=1 "${srun_options[@]}" "${inside[@]}" bash "$here/node.sh" run "$@" &
running=$!
trap 'signalled=yes; kill -USR1 $running 2> /dev/null || true' USR1 # they may have ended
trap 'signalled=yes' TERM # SLURM itself has sent the signal to the ranks
status=0
wait $running || status=$?
while kill -0 $running 2> /dev/null; do # a trap ends `wait`, but not srun
  status=0
  wait $running || status=$?
done

is_current() { # does SLURM still run this restart of the job? An earlier one that was cut off must not requeue it
  local shown
  for _ in 1 2 3; do # slurmctld may be busy
    if shown=$(scontrol --oneliner show job "$job"); then
      [[ $shown == *" JobState=RUNNING "* && $shown == *" Restarts=$restarts "* ]]
      return
    fi
    sleep 10
  done
  echo "error: SLURM does not answer, so job $job does not go back into the queue. Submit again to go on." >&2
  return 1
}

note_failure() { # in status.json, where the ranks could not
  ask failed "$FTSYS_BEFORE" "$status" > /dev/null || echo "$FTSYS_RUN_DIR/status.json could not be corrected" >&2
}

requeue() { # requeue WHY
  if [ "$restarts" -ge "$most" ]; then
    note_failure
    echo "error: restart limit reached (FTSYS_MAX_RESTARTS=$most): $1. Submit again to go on." >&2
    exit "$status"
  fi
  echo "$1: job $job goes back into the queue"
  scontrol requeue "$job" || echo "error: it could not be requeued. Submit again to go on." >&2
  exit "$status"
}

status=$(ask outcome "$FTSYS_BEFORE" "$status" "$signalled")
rm -f "$FTSYS_EXIT_FILE"
case $status in
  0 | 2 | 77) ;;
  75) ! is_current || requeue "stopped early with a checkpoint" ;;
  *) # a rank or its node failed
    if is_current; then
      timeout 60 "${step[@]}" bash "$here/node.sh" clean || requeue "a node does not answer"
      note_failure
    fi
    ;;
esac
exit "$status"
