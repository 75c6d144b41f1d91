#!/usr/bin/env bash
# Runs on each node of a job; job.sh starts it through srun.
#   node.sh check                 checks that this node can take part; ends with a message and status 2 if it cannot
#   node.sh run RUN.toml ...      starts one torchrun with this node's ranks
#   node.sh clean                 removes what a killed `node.sh run` left on this node
set -euo pipefail
export PYTHONSAFEPATH=1 # for torchrun's ranks; a container may have another environment than job.sh

node=$SLURMD_NODENAME
ranks=$FTSYS_GPUS
[ "$ranks" -gt 0 ] || ranks=1
scratch=${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/ftsys-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}-$node

refuse() {
  echo "error: $*" >&2
  exit 2
}

check() {
  command -v "$FTSYS_PYTHON" > /dev/null || refuse "no virtual environment on $node: '$FTSYS_PYTHON' is missing there."
  [ "${SLURM_GPUS_ON_NODE:-0}" = "$FTSYS_GPUS" ] ||
    refuse "unequal nodes: $node has ${SLURM_GPUS_ON_NODE:-0} GPU(s), the first node $FTSYS_GPUS. Ask for --gpus-per-node."
  for _ in 1 2 3 4 5; do # network file systems may show a new file late
    [ "$(cat "$FTSYS_RUN_DIR/logs/slurm-job" 2> /dev/null || true)" != "$FTSYS_JOB" ] || return 0
    sleep 1
  done
  refuse "'$FTSYS_RUN_DIR' is not shared: $node does not see what the first node wrote there."
}

# Copies the store to a disk of the node and prints the folder to read stores from, or nothing to read the shared one.
stage() {
  local root=${SLURM_TMPDIR:-} store copy
  if [ -z "$root" ]; then
    root=${TMPDIR:-/tmp}
    case $(stat --file-system --format %T "$root" 2> /dev/null) in
      ext2/ext3 | xfs | btrfs | zfs | f2fs) ;;
      *) return 0 ;; # in memory, or on a shared disk
    esac
  fi
  store=$("$FTSYS_PYTHON" -P -m ftsys prepare "$@" | tail -n 1) && [ -d "$store" ] || return 0
  copy=$scratch/stores/$(basename "$store")
  if mkdir -p "$scratch/stores" && cp -r "$store" "$copy.tmp" && diff -rq "$store" "$copy.tmp" >&2 && mv "$copy.tmp" "$copy"; then
    echo "$scratch/stores"
  else
    rm -rf "$scratch/stores"
    echo "$node: the store could not be copied to $root: it is read from the shared disk" >&2
  fi
}

clean() {
  [ ! -O "$scratch" ] || rm -rf "$scratch"
}

# Signals the ranks, not torchrun: it dies of USR1, and a second signal ends its wait for ranks that save.
stop() {
  signalled=yes
  local pid
  [ -n "$torchrun" ] || return 0
  local children
  children=$(cat "/proc/$torchrun/task/$torchrun/children" 2> /dev/null || true)
  for pid in ${children:-$torchrun}; do kill -TERM "$pid" 2> /dev/null || true; done
}

run() {
  signalled="" torchrun=""
  trap stop USR1 TERM
  # The name can be guessed and holds code, the compiled ops: a folder that is there already is somebody else's.
  mkdir -m 700 "$scratch" || refuse "'$scratch' cannot be made, or somebody else made it: remove it on $node."
  trap 'rm -rf "$scratch"' EXIT
  if [ "$FTSYS_DEVICE" = cpu ]; then export CUDA_VISIBLE_DEVICES="" DS_ACCELERATOR=cpu; fi
  # Folder for compiled ops: a new one has no stale lock of another process, and none of ours stays behind.
  export TORCH_EXTENSIONS_DIR=${TORCH_EXTENSIONS_DIR:-$scratch/extensions}
  local towards=$MASTER_ADDR threads interface stores
  if [ "$SLURM_NODEID" = 0 ]; then towards=$FTSYS_PEER; fi
  read -r threads interface < <("$FTSYS_PYTHON" -P -m launcher.slurm.in_job node "$ranks" "$towards")
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$threads}
  if [ -n "$interface" ]; then
    export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-$interface}
    [ "$SLURM_JOB_NUM_NODES" = 1 ] || export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-=$interface}
  fi
  stores=$(stage "$@")
  if [ -n "$signalled" ]; then exit 0; fi
  if [ -s "$FTSYS_EXIT_FILE" ]; then exit 2; fi # the data was refused, with a message
  if [ -n "$stores" ]; then export FTSYS_STAGED_STORES=$stores; fi

  "$FTSYS_PYTHON" -P -m torch.distributed.run \
    --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node="$ranks" --node-rank="$SLURM_NODEID" \
    --master-addr="$MASTER_ADDR" --master-port="$MASTER_PORT" \
    --rdzv-id="$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" --max-restarts=0 \
    --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 --shutdown-timeout=300 --log-dir="$scratch/torchrun" \
    --module ftsys train "$@" &
  torchrun=$!
  local status=0
  wait $torchrun || status=$?
  while kill -0 $torchrun 2> /dev/null; do # a trap ends `wait`, but not torchrun
    status=0
    wait $torchrun || status=$?
  done
  if [ -n "$signalled" ]; then exit 0; fi # status.json has the result; a failure here would kill ranks that save
  # A torchrun that fails after the run is done must not end the other nodes.
  local told=""
  if [ $status != 0 ]; then told=$("$FTSYS_PYTHON" -P -m launcher.slurm.in_job written "$FTSYS_BEFORE") || true; fi
  if [ "$told" = 0 ]; then exit 0; fi
  exit $status
}

"$@"
