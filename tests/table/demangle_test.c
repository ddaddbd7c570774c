// SPDX-License-Identifier: Apache-2.0
#include "symbolizer/table/demangle.h"

#include "base/cleanup.h"

#include <criterion/criterion.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static char out[DEMANGLE_OUT_SIZE];

/* NULL: as it is. Full names are what llvm-cxxfilt 19 and c++filt 2.40 print. */
static const struct {
	const char *linkage, *full, *brief;
} names[] = {
	{"main", NULL, NULL},
	{"", NULL, NULL},
	{"_", NULL, NULL},
	{"_Z", NULL, NULL},
	{"_R", NULL, NULL},
	{"_Znope", NULL, NULL},
	{"_Z1fi", "f(int)", "f"},
	{"_ZN2ns1fEi", "ns::f(int)", "ns::f"},
	{"_ZN2ns1fIiEEvT_", "void ns::f<int>(int)", "ns::f"},
	{"_ZNKSt6vectorIiSaIiEE4sizeEv", "std::vector<int, std::allocator<int> >::size() const", "std::vector::size"},
	{"_ZN12_GLOBAL__N_13fooEv", "(anonymous namespace)::foo()", "(anonymous namespace)::foo"},
	{"_ZlsRSoRK1A", "operator<<(std::ostream&, A const&)", "operator<<"},
	{"_ZltIiEbRK1AIT_ES4_", "bool operator< <int>(A<int> const&, A<int> const&)", "operator<"},
	{"_ZN1AclEi", "A::operator()(int)", "A::operator()"},
	{"_ZNK1AptEv", "A::operator->() const", "A::operator->"},
	{"_ZN1AcvSt6vectorIiSaIiEEEv", "A::operator std::vector<int, std::allocator<int> >()", "A::operator std::vector"},
	{"_ZZ4mainENKUliE_clEi", "main::{lambda(int)#1}::operator()(int) const", "main::{lambda#1}::operator()"},
	{"_ZZN1A1fEiENKUlvE_clEv", "A::f(int)::{lambda()#1}::operator()() const", "A::f::{lambda#1}::operator()"},
	{"_ZN4core3fmt9Formatter9write_str17h0123456789abcdefE", "core::fmt::Formatter::write_str::h0123456789abcdef",
		"core::fmt::Formatter::write_str"},
	{"_RNvC6_123foo3bar", "123foo::bar", "123foo::bar"},
	{"_RINvNtC3std3mem8align_ofjE", "std::mem::align_of::<usize>", "std::mem::align_of"},
	{"_Z1fi.part.0", "f(int)", "f"},
	{"_Z1fi.constprop.0.isra.2.cold", "f(int)", "f"},
	{"_Z1fi.llvm.1234567890", "f(int)", "f"},
	{"fgetspent_r.part.0", "fgetspent_r", "fgetspent_r"},
	{"foo.lto_priv.12", "foo", "foo"},
	{"foo.cold", "foo", "foo"},
	{"foo.localalias.3", "foo", "foo"},
	{"foo.part.0.lto_priv.0.cold", "foo", "foo"},
	{"foo.isra.0.constprop.0.lto_priv.7", "foo", "foo"},
	{"foo.__uniq.123456789.llvm.42", "foo", "foo"},
	{"_Z1fi.__part.3", "f(int)", "f"},
	{"_ZN2ns1fEi.lto_priv.0.cold", "ns::f(int)", "ns::f"},
	{"_ZN4core3fmt9Formatter9write_str17h0123456789abcdefE.llvm.99", "core::fmt::Formatter::write_str::h0123456789abcdef",
		"core::fmt::Formatter::write_str"},
	{"_RINvNtC3std3mem8align_ofjE.llvm.99", "std::mem::align_of::<usize>", "std::mem::align_of"},
	/* Stubs of the PLT */
	{"puts@plt", NULL, NULL},
	{"_Znwm@plt", "operator new(unsigned long)@plt", "operator new@plt"},
	{"_ZN2ns1fIiEEvT_@plt", "void ns::f<int>(int)@plt", "ns::f@plt"},
	{"@plt", NULL, NULL},
	/* D, Swift and OCaml are left as they are */
	{"_D3std5stdio__T8writeln4TAyaZQrFNfQjZv", NULL, NULL},
	{"_Dmain", NULL, NULL},
	{"$s4main7CounterC5countSivg", NULL, NULL},
	{"$sSS10FoundationE4dataSSvg", NULL, NULL},
	{"_$s4main7CounterC5countSivg", NULL, NULL},
	{"camlStdlib__List__map_481", NULL, NULL},
	{"camlDune__exe__Main.fun_1234", NULL, NULL},
	/* Go's dots, and suffixes that nobody is known to append, stay */
	{"main.main.func1", NULL, NULL},
	{"github.com/x/y.(*T).Run.func2.1", NULL, NULL},
	{"runtime.goexit.abi0", NULL, NULL},
	{"foo.1", NULL, NULL},
	{".part.0", NULL, NULL},
	{"cold", NULL, NULL},
	{"foo.partly.0", NULL, NULL},
};

Test(demangle, gives_the_known_full_and_short_names)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const char *linkage = names[i].linkage;
		const char *got = demangle(linkage, DEMANGLE_FULL, out, sizeof(out));
		cr_expect_str_eq(got, names[i].full ? names[i].full : linkage, "%s: %s", linkage, got);
		cr_expect(names[i].full || got == linkage);
		got = demangle(linkage, DEMANGLE_SHORT, out, sizeof(out));
		cr_expect_str_eq(got, names[i].brief ? names[i].brief : linkage, "%s: %s", linkage, got);
		cr_expect_eq(demangle(linkage, DEMANGLE_NONE, out, sizeof(out)), linkage);
	}
}

/* Every length of buffer: the answer, or the linkage name, and never a byte past the end (ASan). */
Test(demangle, fits_any_buffer)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		for (size_t cap = 0; cap < 80; cap++) {
			CLEANUP(freep) char *small = malloc(cap + 1);
			small[cap] = 'X';
			const char *got = demangle(names[i].linkage, DEMANGLE_FULL, small, cap);
			cr_assert_eq(small[cap], 'X');
			const char *want = names[i].full && strlen(names[i].full) < cap ? names[i].full : names[i].linkage;
			cr_assert_str_eq(got, want, "%s in %zu bytes: %s", names[i].linkage, cap, got);
		}
}

static char *repeat(const char *head, const char *part, size_t len, const char *tail)
{
	char *name = malloc(len + strlen(head) + strlen(part) + strlen(tail) + 1);
	size_t at = (size_t)sprintf(name, "%s", head);
	while (at + strlen(part) + strlen(tail) <= len)
		at += (size_t)sprintf(name + at, "%s", part);
	sprintf(name + at, "%s", tail);
	return name;
}

Test(demangle, leaves_names_over_4_kib_and_does_those_of_4_kib)
{
	CLEANUP(freep) char *fits = repeat("_ZN", "1a", DEMANGLE_MAX_NAME - 2, "3bcdEv");
	CLEANUP(freep) char *longer = repeat("_Z1f", "i", DEMANGLE_MAX_NAME + 1, "");
	cr_assert_leq(strlen(fits), DEMANGLE_MAX_NAME);
	cr_assert_eq(strlen(longer), DEMANGLE_MAX_NAME + 1);
	cr_assert_eq(demangle(longer, DEMANGLE_FULL, out, sizeof(out)), longer);
	/* 2,045 names of one letter, joined by "::", pass the output's bound; of medium length it fits */
	cr_assert_eq(demangle(fits, DEMANGLE_FULL, out, sizeof(out)), fits);
	CLEANUP(freep) char *medium = repeat("_ZN", "8abcdefgh", 3200, "Ev");
	cr_assert_gt(strlen(medium), 3000);
	cr_assert_eq(demangle(medium, DEMANGLE_FULL, out, sizeof(out)), out);
	cr_assert_eq(strncmp(out, "abcdefgh::abcdefgh::", 20), 0);
}

/* f(a<int, int>, b<that, that>, b<that, that>, ..): doubles with every step, to 2^35 characters, were it not stopped. */
static char *bomb_cxx(unsigned steps)
{
	static const char base36[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
	char *name = malloc(4096);
	size_t at = (size_t)sprintf(name, "_Z1f1aIiiE");
	for (unsigned i = 0; i < steps; i++) {
		unsigned seq = 2 * i; /* the number of the step before, less one: S_ is the first, S0_ the second */
		char ref[4] = {seq >= 36 ? base36[seq / 36] : base36[seq], seq >= 36 ? base36[seq % 36] : 0};
		at += (size_t)sprintf(name + at, "1bIS%s_S%s_E", ref, ref);
	}
	return name;
}

static double seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

Test(demangle, stops_names_that_expand_without_end)
{
	CLEANUP(freep) char *cxx = bomb_cxx(35), *small = bomb_cxx(3);
	const char *got = demangle(small, DEMANGLE_SHORT, out, sizeof(out));
	cr_assert_str_eq(got, "f");
	got = demangle(small, DEMANGLE_FULL, out, sizeof(out));
	cr_assert_str_eq(got, "f(a<int, int>, b<a<int, int>, a<int, int> >, b<b<a<int, int>, a<int, int> >, b<a<int, int>, a<int, int> > >, "
			      "b<b<b<a<int, int>, a<int, int> >, b<a<int, int>, a<int, int> > >, b<b<a<int, int>, a<int, int> >, "
			      "b<a<int, int>, a<int, int> > > >)");
	/* tuples of back references to the tuple before; offsets count from behind "_R", in base 62 less one */
	char rust[1024] = "_RIC1aTuuE";
	size_t at = strlen(rust), before = 4;
	for (unsigned i = 0; i < 20; i++) {
		static const char base62[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
		size_t here = at - 2, n = before - 1;
		char ref[4] = {n >= 62 ? base62[n / 62] : base62[n], n >= 62 ? base62[n % 62] : 0};
		at += (size_t)sprintf(rust + at, "TB%s_B%s_E", ref, ref);
		before = here;
	}
	sprintf(rust + at, "E");
	double start = seconds();
	for (unsigned i = 0; i < 100; i++) {
		(void)demangle(cxx, DEMANGLE_FULL, out, sizeof(out));
		(void)demangle(rust, DEMANGLE_FULL, out, sizeof(out));
	}
	cr_assert_lt(seconds() - start, 10.0);
	cr_assert_eq(demangle(cxx, DEMANGLE_FULL, out, sizeof(out)), cxx);
	cr_assert_eq(demangle(rust, DEMANGLE_FULL, out, sizeof(out)), rust);
	rust[10 + 3 * 8] = 'E'; /* after three of them it is short enough */
	rust[10 + 3 * 8 + 1] = 0;
	got = demangle(rust, DEMANGLE_FULL, out, sizeof(out));
	cr_assert_eq(strncmp(got, "a::<((), ()), (((), ()), ((), ())), ", 36), 0, "%s", got);
}

/* Nested as deep as 4 KiB allow, in every way that recurses. */
static void *demangle_nested(void *unused)
{
	static const struct {
		const char *head, *part, *tail;
	} kinds[] = {{"_Z1f", "P", "i"}, {"_Z1f", "F", ""}, {"_Z1f", "PF", "v"}, {"_Z1f", "A_", "i"}, {"_ZN1a", "I1a", "E"},
		{"_Z1f", "1aI", "i"}, {"_Z1fI", "X", "E"}, {"_Z1fIiEDT", "cv", "E"}, {"_Z", "Z", "E"}, {"_ZZ1f", "ENKUlvE_", "v"},
		{"_Z1fIiEv", "RT_", ""}, {"_Z1f", "1aIRT_E", ""}, {"_Z1fIiEDT", "nt", "fp_E"}, {"_Z1f", "DpU1a", "i"}, {"_RI", "I", "E"},
		{"_RIC1a", "R", "uE"}, {"_RIC1a", "T", "uE"}, {"_RIC1a", "FP", "uE"}, {"_RX", "X", ""}, {"_RNv", "Nv", "C1a"}};
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		for (size_t len = 500; len <= DEMANGLE_MAX_NAME; len += 1798) {
			char *name = repeat(kinds[i].head, kinds[i].part, len, kinds[i].tail);
			(void)demangle(name, DEMANGLE_FULL, out, sizeof(out));
			(void)demangle(name, DEMANGLE_SHORT, out, sizeof(out));
			free(name);
		}
	return unused;
}

Test(demangle, keeps_within_4_mib_of_stack)
{
#if defined(__SANITIZE_ADDRESS__)
	size_t stack = 32 << 20; /* its frames are several times as large */
#else
	size_t stack = 4 << 20;
#endif
	pthread_attr_t attributes;
	pthread_t thread;
	cr_assert_eq(pthread_attr_init(&attributes), 0);
	cr_assert_eq(pthread_attr_setstacksize(&attributes, stack), 0);
	cr_assert_eq(pthread_create(&thread, &attributes, demangle_nested, NULL), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	pthread_attr_destroy(&attributes);
}

#if !defined(__SANITIZE_ADDRESS__)
/* A longjmp out of the printer would leak what was allocated: nothing is. */
Test(demangle, allocates_nothing)
{
	CLEANUP(freep) char *bomb = bomb_cxx(35);
	(void)demangle("_Z1fi", DEMANGLE_FULL, out, sizeof(out));
	size_t before = mallinfo2().uordblks;
	for (unsigned i = 0; i < 100; i++) {
		for (size_t k = 0; k < ARRAY_SIZE(names); k++)
			(void)demangle(names[k].linkage, DEMANGLE_FULL, out, k % 2 ? sizeof(out) : 12);
		(void)demangle(bomb, DEMANGLE_FULL, out, sizeof(out));
	}
	cr_assert_eq(mallinfo2().uordblks, before);
}
#endif
