mkdir -p out
cmake -S . -B tree
cp tree/result out/
