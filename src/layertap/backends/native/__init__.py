"""The native backend: encoders on x86-64 processors with kernels in C++, without torch."""
