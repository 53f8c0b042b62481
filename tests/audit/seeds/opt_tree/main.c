#if __has_include(<seedopt.h>)
#include <seedopt.h>
#endif
#ifndef SEED
#define SEED 0
#endif
int main(void) { return SEED; }
