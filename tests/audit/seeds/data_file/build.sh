set -e
mkdir -p out
awk 'BEGIN { while ((getline line < "/usr/share/seeddata/table.txt") > 0) n++; print n + 0 }' > out/result
