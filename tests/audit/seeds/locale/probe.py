import locale

try:
    print(locale.setlocale(locale.LC_ALL, "sd_SD.UTF-8"))
except locale.Error:
    print("none")
