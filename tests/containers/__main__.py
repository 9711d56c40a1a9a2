"""A cluster of containers to look around in: ``up``, ``down``, ``kubectl …`` or ``exec NODE …``."""

import os
import sys

from tests.containers.machine import Machine, down, missing


def main() -> None:
    if problem := missing():
        raise SystemExit(f"no cluster of containers on this machine: {problem}")
    match sys.argv[1:]:
        case ["up"]:
            Machine().up()
        case ["down"]:
            down()
        case ["kubectl", *arguments]:
            machine = Machine()
            command = machine.local("kubectl", f"--kubeconfig={machine.kubeconfig}", *arguments)
            os.execvp(command[0], command)
        case ["exec", node, *arguments]:
            sys.stdout.write(Machine().exec(node, *arguments))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
