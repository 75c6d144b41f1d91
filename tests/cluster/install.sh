#!/usr/bin/env bash
# Installs the Debian packages for the virtual hosts and their SLURM. If it cannot, the tests are skipped and say what is
# missing.
set -euo pipefail
packages=(iproute2 util-linux openssh-client openssh-server)
packages+=(slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge)
PATH=$PATH:/usr/sbin:/sbin
for program in ip unshare nsenter ssh sshd slurmctld slurmd sbatch munged; do
  command -v $program > /dev/null || missing=yes
done
[ "${missing:-}" ] || exit 0
if [ "$(id -u)" != 0 ]; then echo "not root: ${packages[*]} are not installed"; exit 0; fi
if ! command -v apt-get > /dev/null; then echo "no apt-get: install ${packages[*]}"; exit 0; fi
# Packages start their own daemons, unless this file forbids it.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' > $policy
  chmod 755 $policy
  trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}"; } > /dev/null ||
  echo "apt-get could not install ${packages[*]}"
