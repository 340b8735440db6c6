"""A real Slurm of two nodes on this machine, from Debian's packages: no systemd, no cgroups, for tests only.

`python -m tests.slurm.cluster start DIR` and `... stop DIR` do by hand what the tests do. It needs root, since daemons,
/etc/hosts and /etc/slurm are the machine's.
"""

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client")
CONF_NAME = "slurm-of-tests.conf"  # what its processes are known by
NODES = ("node1", "node2")
CLEAN_UP = 13.0  # seconds after which nothing is left of a job that was ended: KillWait and a little
TURN = 1200.0  # seconds to wait for the tests of another process, whose cluster has the same ports
CPUS = 4  # that each node says it has, so that jobs of several tasks fit on two cores
CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
PropagateResourceLimits=NONE
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool/%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/%n.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
KillWait=10
ReturnToService=2
SlurmdTimeout=10
MinJobAge=600
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
PartitionName=main Nodes={nodes} Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.{number} Port={port} CPUs={cpus} RealMemory=4000\n"
# submitit asks sacct how its jobs are; without an accounting database the controller's own memory answers the same
SACCT = """\
#!/bin/sh
jobs=""
while [ $# -gt 0 ]; do [ "$1" = -j ] && jobs="$jobs,$2"; shift; done
echo "JobID|State|NodeList"
exec squeue --noheader --array --states=all --jobs="${jobs#,}" --format="%i|%T|%N"
"""


class NoSlurmError(Exception):
    """Slurm cannot be had on this machine; the message says why."""


class Cluster:
    """Two nodes, called node1 and node2, with a host name each. `start` waits for its turn: one a machine at a time."""

    def __init__(self, directory: Path):
        self.directory = directory.absolute()
        self.requeued: dict[str, float] = {}  # jobs that wait to start again, and since when
        self.environment = {**os.environ, "SLURM_CONF": str(self.directory / CONF_NAME)}
        self.environment["PATH"] = f"{self.directory / 'bin'}:{os.environ['PATH']}"
        self.turn = (Path(tempfile.gettempdir()) / "slurm-of-tests.lock").open("w")

    def start(self) -> None:
        """Raises NoSlurmError where Slurm cannot be installed, or does not start."""
        install()
        wait(self.is_its_turn, "another cluster of tests on this machine to end", TURN)
        end_processes(lambda conf: conf.name == CONF_NAME)  # of a cluster whose tests were killed: it has the ports
        for name in ("state", "spool", "bin"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        self.write_files()
        start_munge()
        self.call("slurmctld", "-i")
        for name in NODES:
            self.start_node(name)
        wait(lambda: self.call("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split() == list(NODES), "two idle nodes")

    def is_its_turn(self) -> bool:
        """Whether this process may have its cluster: until `stop`, or its end."""
        try:
            fcntl.flock(self.turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def write_files(self) -> None:
        host = socket.gethostname()
        conf = CONF.format(host=host, directory=self.directory, nodes=",".join(NODES))
        for i, name in enumerate(NODES):
            conf += NODE.format(name=name, host=host, number=i + 2, port=17001 + i, cpus=CPUS)
        (self.directory / CONF_NAME).write_text(conf)
        sacct = self.directory / "bin" / "sacct"
        sacct.write_text(SACCT)
        sacct.chmod(0o755)
        hosts = Path("/etc/hosts")
        known = hosts.read_text().split()
        with hosts.open("a") as file:  # submitit takes the first node's name for MASTER_ADDR
            file.writelines(f"127.0.0.{i + 2} {name}\n" for i, name in enumerate(NODES) if name not in known)

    def start_node(self, name: str) -> None:
        """One slurmd, in a UTS namespace of its own, so that it has its own host name."""
        self.call("unshare", "--uts", "sh", "-c", f"hostname {name}; exec slurmd -N {name}")

    def kill_node(self, name: str) -> None:
        """Let a node die with everything on it, and tell the controller, which would else take SlurmdTimeout."""
        slurmd = (self.directory / f"{name}.pid").read_text().strip()
        node = Path(f"/proc/{slurmd}/ns/uts").readlink()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (process / "ns" / "uts").readlink() == node:
                    os.kill(int(process.name), signal.SIGKILL)
        self.call("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=killed")

    def requeued_start_soon(self) -> None:
        """Slurm lets a requeued job wait for two minutes; here as long as it takes to clean up behind it."""
        waiting = self.call("squeue", "-h", "-r", "-t", "PD", "-o", "%i %r").splitlines()
        jobs = {line.split()[0] for line in waiting if line.endswith("BeginTime")}
        self.requeued = {job: self.requeued.get(job, time.monotonic()) for job in jobs}
        for job, since in self.requeued.items():
            if time.monotonic() - since > CLEAN_UP:
                self.call("scontrol", "update", f"JobId={job}", "StartTime=now")

    def call(self, *command: str) -> str:
        """A command against this cluster; its output. Raises NoSlurmError with what it printed where it fails."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise NoSlurmError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def stop(self) -> None:
        with suppress(NoSlurmError):
            self.call("scancel", "--full", "--signal=KILL", "--state=RUNNING")
            self.call("scancel", "--state=PENDING")
        for name in (*NODES, "slurmctld"):
            file = self.directory / f"{name}.pid"
            with suppress(OSError, ValueError):
                os.kill(int(file.read_text()), signal.SIGTERM)
        time.sleep(1)
        end_processes(lambda conf: conf == self.directory / CONF_NAME)  # steps that hold on
        self.turn.close()


def end_processes(is_ours: Callable[[Path], bool]) -> None:
    """Kill what was started with a configuration of ours, but this process and those that it descends from."""
    own, pid = set(), os.getpid()
    while pid > 1:
        own.add(pid)
        pid = int(re.findall(r"PPid:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())[0])
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            environment = (process / "environ").read_bytes().decode(errors="replace").split("\0")
            confs = [entry.removeprefix("SLURM_CONF=") for entry in environment if entry.startswith("SLURM_CONF=")]
            if confs and is_ours(Path(confs[0])) and int(process.name) not in own:
                os.kill(int(process.name), signal.SIGKILL)


def install() -> None:
    """Debian's packages, if they are missing. Raises NoSlurmError."""
    if shutil.which("slurmctld") and shutil.which("slurmd") and shutil.which("munged"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise NoSlurmError(
            "Slurm is not installed, and only root on Debian can install it: apt-get install " + " ".join(PACKAGES)
        )
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(["apt-get", "-qq", *command], env=quiet, capture_output=True, text=True)
        if done.returncode != 0:
            raise NoSlurmError(f"apt-get {command[0]} failed: {done.stderr.strip()[-300:]}")


def start_munge() -> None:
    """Authentication between the daemons; left running."""
    if subprocess.run(["munge", "-n"], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0:
        return
    place = Path("/run/munge")
    place.mkdir(exist_ok=True)
    shutil.chown(place, "munge", "munge")
    place.chmod(0o755)
    subprocess.run(["setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "munged"], check=True)
    ready = ["munge", "-n"]
    wait(lambda: subprocess.run(ready, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0, "munged")


def wait(ready: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Until it is so. Raises NoSlurmError."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise NoSlurmError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.2)


if __name__ == "__main__":
    getattr(Cluster(Path(sys.argv[2])), sys.argv[1])()
