try:
    import seeddecoypy  # noqa: F401
except ImportError:
    pass
print("same")
