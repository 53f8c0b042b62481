#ifndef SEED
#define SEED 0
#endif
int main(void) { return SEED; }
