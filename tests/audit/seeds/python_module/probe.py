try:
    import seedpy
except ImportError:
    print("none")
else:
    print(seedpy.SEED)
