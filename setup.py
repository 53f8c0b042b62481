"""Packaging. `pkgjail/backends`, `whitelists` and `blacklists` are links to the top level."""

from pathlib import Path

from setuptools import setup

setup(
    name="pkgjail",
    version="0.1.0",
    description="Jails that show exactly the files of whitelisted packages, for honest builds",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.9",
    packages=[
        "pkgjail",
        "pkgjail.backends",
        "pkgjail.backends.debian",
        "pkgjail.backends.pacman",
        "pkgjail.backends.rpm",
        "pkgjail.cli",
        "pkgjail.cli.verbs",
        "pkgjail.closure",
        "pkgjail.core",
        "pkgjail.environments",
        "pkgjail.export",
        "pkgjail.fileset",
        "pkgjail.integrations",
        "pkgjail.integrations.spack",
        "pkgjail.jail",
        "pkgjail.jail.strategies",
        "pkgjail.manifest",
        "pkgjail.policy",
        "pkgjail.repositories",
        "pkgjail.review",
        "pkgjail.review.check",
        "pkgjail.review.report",
        "pkgjail.review.verify",
        "pkgjail.sandbox",
        "pkgjail.storage",
    ],
    package_data={
        "pkgjail": ["py.typed", "whitelists/*.toml", "blacklists/*.ignore"],
        "pkgjail.manifest": ["schema.json"],
        "pkgjail.integrations.spack": ["extension/*/*/cmd/*.py"],
        "pkgjail.review.report": ["assets/*", "assets/licences/*"],
    },
    install_requires=[
        "argcomplete>=3",
        "networkx>=3",
        "pathspec>=1",
        "pyelftools>=0.29",
        "python-debian>=0.1.49",
        "rich>=13",
        "tomli>=2; python_version < '3.11'",
    ],
    entry_points={
        "console_scripts": [
            "pkgjail = pkgjail.__main__:main",
            "pkgjail-spack-python = pkgjail.integrations.spack.wrapper:main",
        ],
        "spack.config": ["pkgjail = pkgjail.integrations.spack.hook:go_inside"],
        "spack.extensions": ["pkgjail = pkgjail.integrations.spack.extensions:extension_paths"],
    },
    extras_require={
        "sbom": ["cyclonedx-python-lib>=8", "packageurl-python>=0.11", "spdx-tools>=0.8.2"],
    },
)
