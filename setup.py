"""Which folder is which package: `src` is `metashot`, `conf` travels inside it, `hydra_plugins` stays Hydra's name."""

from setuptools import find_namespace_packages, find_packages, setup

setup(
    package_dir={"metashot": "src", "metashot.conf": "conf", "hydra_plugins": "src/hydra_plugins"},
    packages=[
        "metashot",
        "metashot.conf",
        *(f"metashot.{name}" for name in find_packages("src", exclude=["hydra_plugins*"])),
        "hydra_plugins",
        *(f"hydra_plugins.{name}" for name in find_namespace_packages("src/hydra_plugins")),
    ],
    package_data={
        "metashot": [
            f"**/*.{kind}" for kind in ("yaml", "json", "jsonl", "txt", "html", "css", "js", "csv", "md")
        ]
        + ["py.typed"],
        "metashot.conf": ["**/*.yaml"],
    },
)
