"""podman with its images, and the campaign that is run in them."""

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def sh(*command: str, **options: object) -> str:
    """Output of a command that succeeds."""
    options = {"capture_output": True, "text": True, **options}
    done = subprocess.run(command, **options)
    assert done.returncode == 0, f"{shlex.join(command)}:\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Podman:
    """podman with images and containers of its own, below `folder`."""

    folder: Path

    @property
    def command(self) -> list[str]:
        return ["podman", f"--root={self.folder}/storage", f"--runroot={self.folder}/run"]

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"CONTAINERS_CONF": str(self.folder / "containers.conf")}

    def __call__(self, *arguments: str) -> str:
        return sh(*self.command, *arguments, env=self.environment)

    def import_debian(self, suite: str, packages: str, name: str, *options: str) -> None:
        """Debian with these packages alone, as an image of that name."""
        archive = str(self.folder / f"{suite}.tar")
        sh("mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", *options, suite, archive)
        self("import", archive, name)

    def make_image(self, sources: Path, *options: str) -> str:
        """`make image` in a folder of sources; the image's ID."""
        podman = f"PODMAN={shlex.join(self.command)}"
        sh("make", "image", podman, f"IMAGE_OPTIONS={shlex.join(options)}", cwd=sources, env=self.environment)
        return self("image", "inspect", "--format={{.Id}}", "spectralgru:cpu").strip()

    def inside(self, *command: str, mount: Path, options: tuple[str, ...] = ()) -> str:
        """Output of a command in the image, without a network, in the folder `mount`."""
        here = [f"--volume={mount}:{mount}", f"--workdir={mount}"]
        return self("run", "--rm", "--network=none", *here, *options, "spectralgru:cpu", *command)


def seconds_long() -> str:
    """params.yaml with a quick campaign of seconds: one corpus, from a package that is in the environment."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    chorales = values["quick"]["settings"]["chorales"]
    chorales["data"] = {"train": 20, "valid": 5, "test": 5}
    chorales["model"]["hidden_size"] = 12
    chorales["training"] |= {"epochs": 2, "trace_every": 5}
    chorales["methods"] = {"constraint": [0.2], "clipping": [15], "none": False}
    values["quick"] |= {"run": ["chorales"], "seeds": [0, 1]}
    return yaml.safe_dump(values)
