// SPDX-License-Identifier: Apache-2.0
// C++: virtual calls, a destructor while an exception flies, std::sort's comparison, a thread of the library's. Ends by abort, or never
// ("spin").
#include <algorithm>
#include <chrono>
#include <csignal>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

static volatile int sink;
static bool spin;

struct base {
	virtual ~base() {}
	virtual int run(int n) = 0;
};

struct guard {
	~guard()
	{
		while (spin)
			sink = sink + 1;
		std::raise(SIGABRT);
		sink = sink + 1;
	}
};

struct derived : base {
	int run(int n) override
	{
		if (n > 0)
			return run(n - 1) + 1;
		guard g;
		throw std::runtime_error(std::string("boom") + std::to_string(n));
	}
};

int main(int argc, char **)
{
	spin = argc > 1;
	std::vector<int> items{3, 1, 2};
	std::function<int(int)> call = [](int n) {
		derived d;
		base *b = &d;
		return b->run(n);
	};
	std::thread worker([&] {
		// eu-stack has no way out of clone3's system call: let the main thread reach its join.
		std::this_thread::sleep_for(std::chrono::milliseconds(200));
		std::sort(items.begin(), items.end(), [&](int a, int b) {
			try {
				sink = call(argc + 5);
			} catch (const std::exception &) {
				sink = sink + 2;
			}
			return a < b;
		});
	});
	worker.join();
	return sink;
}
