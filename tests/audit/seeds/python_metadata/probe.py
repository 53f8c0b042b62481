from importlib import metadata

try:
    print(metadata.version("seedmeta"))
except metadata.PackageNotFoundError:
    print("none")
