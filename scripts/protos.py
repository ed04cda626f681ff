"""Write the message classes beside their .proto file, or check that they are fresh.

python scripts/protos.py           write them
python scripts/protos.py --check   fail if what is committed differs from what would be written
"""

import argparse
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = "fedtwin_protocol/v1/exchange.proto"
OUTPUTS = ("fedtwin_protocol/v1/exchange_pb2.py", "fedtwin_protocol/v1/exchange_pb2.pyi")


def generate(target: Path) -> None:
    """Write the classes and their type stubs below `target`."""
    well_known = files("grpc_tools") / "_proto"
    arguments = [
        "protoc",
        f"-I{ROOT / 'protocol'}",
        f"-I{well_known}",
        f"--python_out={target}",
        f"--pyi_out={target}",
        PROTO,
    ]
    if protoc.main(arguments) != 0:
        sys.exit("the message classes could not be written: see the lines above")


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare only; write nothing")
    if not parser.parse_args().check:
        generate(ROOT / "protocol")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        stale = [
            name
            for name in OUTPUTS
            if (Path(folder) / name).read_bytes() != (ROOT / "protocol" / name).read_bytes()
        ]
    for name in stale:
        print(f"{name} is stale: run scripts/protos.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
