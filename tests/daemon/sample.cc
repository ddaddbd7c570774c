// SPDX-License-Identifier: Apache-2.0
// What the integration tests upload and symbolize: inline chains of known depth on known lines.
#include <cstdio>
#include <cstdlib>

namespace sample {

volatile int sink;

inline __attribute__((always_inline)) int innermost(int x)
{
	sink = x * 3; // MARK innermost
	return sink + 1;
}

inline __attribute__((always_inline)) int middle(int x)
{
	return innermost(x + 7) ^ 0x55; // MARK middle
}

__attribute__((noinline)) int outer(int x) // MARK outer_start
{
	int y = middle(x); // MARK outer
	return y + 2;
}

template <typename T> struct holder {
	T value;
	__attribute__((noinline)) T get(const char *why) const
	{
		sink = why[0]; // MARK get
		return value;
	}
};

__attribute__((noinline)) int plain(int x)
{
	sink = x; // MARK plain
	return x - 1;
}

} // namespace sample

int main(int argc, char **argv)
{
	sample::holder<long> h{argc};
	std::printf("%d %ld %d\n", sample::outer(argc), h.get(argv[0]), sample::plain(argc));
	return 0;
}
