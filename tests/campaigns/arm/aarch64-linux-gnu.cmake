# Cross-compiles for 64-bit ARM with Debian's g++-aarch64-linux-gnu; its default is armv8-a, what every Pi since the 3 has.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_STRIP aarch64-linux-gnu-strip)
set(CMAKE_CXX_FLAGS_INIT -march=armv8-a)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
