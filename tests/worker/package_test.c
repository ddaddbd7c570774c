// SPDX-License-Identifier: Apache-2.0
/* cairn-worker on packages made by dpkg-deb, and on some that no tool would make. */
#include "tests/worker/run.h"

#include "worker/package.h"

#include "symbolizer/table/table.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct run_seen seen;

static void prepare(void)
{
	run_folder();
	run_shell("mkdir -p root/DEBIAN root/usr/bin root/usr/lib/debug/.build-id/ab root/usr/share/doc/x && "
		  "printf 'Package: x\\nVersion: 1\\nArchitecture: amd64\\nMaintainer: x <x@example.org>\\nDescription: x\\n' > root/DEBIAN/control && "
		  "cp stripped root/usr/bin/sample && cp debug root/usr/lib/debug/.build-id/ab/cdef.debug && "
		  "echo text > root/usr/share/doc/x/copyright && ln -s sample root/usr/bin/link && "
		  "ln root/usr/bin/sample root/usr/bin/hardlink");
}

TestSuite(worker_package, .init = prepare);

static void expect_pair(const struct spawn_report *report)
{
	cr_assert_eq(report->outcome, SPAWN_DONE, "%s: %s", spawn_outcome_name(report->outcome), report->reason);
	cr_assert_eq(seen.count, 1, "%zu results", seen.count);
	const struct run_result *result = &seen.results[0];
	struct table table;
	struct table_info info;
	cr_assert(result->facts.has_debug && !result->facts.debug_only);
	cr_assert(strncmp(result->facts.name, "usr/bin/", 8) == 0, "%s", result->facts.name);
	cr_assert_null(table_open(result->table, result->table_len, &table));
	cr_assert_null(table_verify(&table));
	table_info(&table, &info);
	cr_assert(info.sources & TABLE_FROM_DWARF);
	cr_assert(build_id_equal(&info.build_id, &result->facts.build_id));
}

static void expect_failed(const char *package, const struct spawn_limits *given, const char *part)
{
	struct spawn_limits limits = given ? *given : run_limits();
	struct spawn_report report = run_package(package, &limits, &seen);

	cr_assert_eq(report.outcome, SPAWN_FAILED, "%s: %s: %s", package, spawn_outcome_name(report.outcome), report.reason);
	cr_assert_not_null(strstr(report.reason, part), "%s: %s: %s", package, part, report.reason);
}

Test(worker_package, xz_zstd_gzip_and_plain_packages_pair_binary_and_debug_file)
{
	static const char *const codecs[] = {"xz", "zstd", "gzip", "none"};
	struct spawn_limits limits = run_limits();

	for (size_t i = 0; i < ARRAY_SIZE(codecs); i++) {
		char command[128];

		(void)snprintf(command, sizeof(command), "dpkg-deb --root-owner-group -Z%s -b root x.deb >/dev/null", codecs[i]);
		run_shell(command);
		struct spawn_report report = run_package("x.deb", &limits, &seen);
		expect_pair(&report);
		cr_assert(seen.phases & (1u << PROTOCOL_UNPACKING));
	}
}

Test(worker_package, a_package_of_debug_files_gives_debug_only_results)
{
	struct spawn_limits limits = run_limits();

	run_shell("rm root/usr/bin/*; dpkg-deb --root-owner-group -b root x.ddeb >/dev/null");
	struct spawn_report report = run_package("x.ddeb", &limits, &seen);
	cr_assert_eq(report.outcome, SPAWN_DONE, "%s", report.reason);
	cr_assert_eq(seen.count, 1);
	cr_assert(seen.results[0].facts.debug_only);
	cr_assert_str_eq(seen.results[0].facts.name, "usr/lib/debug/.build-id/ab/cdef.debug");
}

Test(worker_package, a_damaged_member_is_skipped_and_the_others_stand)
{
	struct spawn_limits limits = run_limits();

	run_shell("head -c 6000 sample > root/usr/bin/cut; cp " BARE " root/usr/bin/bare;"
		  "dpkg-deb --root-owner-group -Zgzip -b root x.deb >/dev/null; cp x.deb root/usr/share/doc/x/nested.deb;"
		  "dpkg-deb --root-owner-group -Zgzip -b root x.deb >/dev/null");
	struct spawn_report report = run_package("x.deb", &limits, &seen);
	cr_assert_eq(report.outcome, SPAWN_DONE, "%s", report.reason);
	cr_assert_eq(seen.count, 2);
	cr_assert_eq(seen.skipped, 1);
	cr_assert_not_null(strstr(seen.skipped_text, "usr/bin/cut"), "%s", seen.skipped_text);
}

Test(worker_package, an_empty_package_is_done_without_results)
{
	struct spawn_limits limits = run_limits();

	run_shell("rm -r root/usr; dpkg-deb --root-owner-group -b root x.deb >/dev/null");
	struct spawn_report report = run_package("x.deb", &limits, &seen);
	cr_assert_eq(report.outcome, SPAWN_DONE, "%s", report.reason);
	cr_assert_eq(seen.count, 0);
}

Test(worker_package, a_truncated_package_says_so)
{
	run_shell("dpkg-deb --root-owner-group -Zxz -b root x.deb >/dev/null; size=$(stat -c %s x.deb);"
		  "head -c $((size - 500)) x.deb > ar.deb; head -c 90 x.deb > head.deb; : > empty.deb");
	expect_failed("ar.deb", NULL, "are left");
	expect_failed("head.deb", NULL, "package");
	expect_failed("empty.deb", NULL, "package: empty file");
	expect_failed("sample", NULL, "not a Debian package");
}

/* The compressed stream ends early although ar's sizes are right. */
Test(worker_package, a_truncated_stream_says_so)
{
	static const char *const codecs[] = {"xz", "zst", "gz"};

	for (size_t i = 0; i < ARRAY_SIZE(codecs); i++) {
		char command[400];

		(void)snprintf(command, sizeof(command),
			"rm -rf ar; mkdir ar; cd ar; dpkg-deb --root-owner-group -Z%s -b ../root x.deb >/dev/null; ar x x.deb;"
			"size=$(stat -c %%s data.tar.%s); truncate -s $((size / 2)) data.tar.%s; rm x.deb;"
			"ar rc ../x.deb.tmp debian-binary control.tar.%s data.tar.%s; mv ../x.deb.tmp ../x.deb",
			strcmp(codecs[i], "gz") == 0 ? "gzip" : strcmp(codecs[i], "zst") == 0 ? "zstd" : "xz", codecs[i], codecs[i], codecs[i],
			codecs[i]);
		run_shell(command);
		expect_failed("x.deb", NULL, "data.tar");
	}
}

/* tar says 1 GiB - 1 for a member and recomputes the header's sum. */
Test(worker_package, a_tar_member_that_lies_about_its_size_is_refused)
{
	static uint8_t bytes[1 << 20];

	run_shell("dpkg-deb --root-owner-group -Znone -b root x.deb >/dev/null");
	FILE *file = fopen("x.deb", "r+");
	size_t len = fread(bytes, 1, sizeof(bytes), file);
	uint8_t *header = memmem(bytes, len, "./usr/bin/hardlink", 18);
	cr_assert_not_null(header);
	memcpy(header + 124, "07777777777", 11);
	memset(header + 148, ' ', 8);
	unsigned sum = 0;
	for (size_t i = 0; i < 512; i++)
		sum += header[i];
	(void)snprintf((char *)header + 148, 8, "%06o", sum);
	rewind(file);
	(void)fwrite(bytes, 1, len, file);
	(void)fclose(file);
	expect_failed("x.deb", NULL, "package: data.tar: ");
}

Test(worker_package, a_decompression_bomb_is_refused_by_its_ratio)
{
	run_shell("truncate -s 400M root/usr/share/zeros; dpkg-deb --root-owner-group -Zzstd -b root x.deb >/dev/null");
	expect_failed("x.deb", NULL, "a decompression bomb");
	/* As an ELF member too. */
	run_shell("mv root/usr/share/zeros root/usr/bin/zeros; dd if=sample of=root/usr/bin/zeros conv=notrunc status=none;"
		  "dpkg-deb --root-owner-group -Zzstd -b root x.deb >/dev/null");
	expect_failed("x.deb", NULL, "a decompression bomb");
}

Test(worker_package, more_bytes_than_allowed_are_refused)
{
	struct spawn_limits limits = run_limits();

	limits.max_unpacked_bytes = 8192;
	run_shell("dpkg-deb --root-owner-group -Zxz -b root x.deb >/dev/null");
	expect_failed("x.deb", &limits, "package: more than 8192 bytes unpacked");
}

Test(worker_package, a_second_compression_and_a_wrong_one_are_refused)
{
	run_shell("mkdir ar; cd ar; dpkg-deb --root-owner-group -Zxz -b ../root x.deb >/dev/null; ar x x.deb; rm x.deb;"
		  "mv data.tar.xz inner; xz -c inner > data.tar.xz; ar rc ../twice.deb debian-binary control.tar.xz data.tar.xz;"
		  "xz -dc inner > data.tar.xz; ar rc ../plain.deb debian-binary control.tar.xz data.tar.xz;"
		  "mv inner data.tar.zst; ar rc ../zst.deb debian-binary control.tar.xz data.tar.zst");
	expect_failed("twice.deb", NULL, "compressed twice");
	expect_failed("plain.deb", NULL, "not compressed as its name says");
	expect_failed("zst.deb", NULL, "data.tar.zst");
}

/* Nothing is extracted; the names that are shown and kept are clean. */
Test(worker_package, hostile_names_are_cleaned_and_foreign_letters_kept)
{
	struct spawn_limits limits = run_limits();

	run_shell("mkdir ar; cd ar; dpkg-deb --root-owner-group -Zgzip -b ../root x.deb >/dev/null; ar x x.deb; rm x.deb; cd ..;"
		  "cp sample 'ev\nil'; tar -P --format=pax --transform='s,^sample,../../../etc/./cron.d/gr\303\274n,' --transform='s,^bare,/abs/bare,' "
		  "-czf ar/data.tar.gz sample; cd ar; ar rc ../x.deb debian-binary control.tar.gz data.tar.gz");
	struct spawn_report report = run_package("x.deb", &limits, &seen);
	cr_assert_eq(report.outcome, SPAWN_DONE, "%s", report.reason);
	cr_assert_eq(seen.count, 1);
	cr_assert_str_eq(seen.results[0].facts.name, "etc/cron.d/gr\303\274n");
	run_shell("cd ar; rm -f ../x.deb; tar -P --format=gnu --transform='s,sample,/abs/b\001d,' -C .. -czf data.tar.gz sample;"
		  "ar rc ../x.deb debian-binary control.tar.gz data.tar.gz");
	report = run_package("x.deb", &limits, &seen);
	cr_assert_eq(report.outcome, SPAWN_DONE, "%s", report.reason);
	cr_assert_str_eq(seen.results[0].facts.name, "abs/b?d");
}

Test(worker_package, links_devices_and_fifos_are_passed_over)
{
	struct spawn_limits limits = run_limits();

	run_shell("mkdir ar; cd ar; dpkg-deb --root-owner-group -Zgzip -b ../root x.deb >/dev/null; ar x x.deb; rm x.deb; python3 -c \"\n"
		  "import tarfile\n"
		  "with tarfile.open('data.tar.gz', 'w:gz') as tar:\n"
		  "    for name, kind in (('link', tarfile.SYMTYPE), ('hard', tarfile.LNKTYPE), ('tty', tarfile.CHRTYPE), ('disk', tarfile.BLKTYPE),\n"
		  "                       ('fifo', tarfile.FIFOTYPE), ('folder', tarfile.DIRTYPE), ('unheard-of', b'Z')):\n"
		  "        entry = tarfile.TarInfo('usr/bin/' + name)\n"
		  "        entry.type, entry.linkname, entry.devmajor, entry.devminor = kind, '/etc/passwd', 1, 5\n"
		  "        tar.addfile(entry)\n"
		  "    tar.add('../sample', 'usr/bin/last')\n"
		  "\" && ar rc ../x.deb debian-binary control.tar.gz data.tar.gz");
	struct spawn_report report = run_package("x.deb", &limits, &seen);
	cr_assert_eq(report.outcome, SPAWN_DONE, "%s", report.reason);
	cr_assert_eq(seen.count, 1);
	cr_expect_str_eq(seen.results[0].facts.name, "usr/bin/last");
	cr_expect_eq(seen.skipped, 0, "%s", seen.skipped_text);
}

Test(worker_package, an_archive_of_headers_only_is_counted)
{
	struct spawn_limits limits = run_limits();

	limits.max_unpacked_bytes = 100000;
	run_shell("mkdir root/many; for i in $(seq 300); do : > root/many/$i; done;"
		  "rm -r root/usr; dpkg-deb --root-owner-group -Zxz -b root x.deb >/dev/null");
	expect_failed("x.deb", &limits, "more than 100000 bytes");
}

/* A package with a plain data.tar of @p count members with @p len bytes each, all of one name. */
static void write_many(unsigned count, const char *bytes, size_t len)
{
	static char header[512], padded[512];
	FILE *file = fopen("many.deb", "w");
	size_t tar_len = (size_t)count * (len ? 1024 : 512) + 1024;
	unsigned sum = 0;

	cr_assert_not_null(file);
	(void)fprintf(file, "!<arch>\n%-16s%-12s%-6s%-6s%-8s%-10s`\n2.0\n%-16s%-12s%-6s%-6s%-8s%-10zu`\n", "debian-binary", "0", "0", "0",
		"100644", "4", "data.tar", "0", "0", "0", "100644", tar_len);
	memset(header, 0, sizeof(header));
	(void)snprintf(header, 100, "./a");
	(void)snprintf(header + 100, 8, "%07o", 0644);
	(void)snprintf(header + 108, 8, "%07o", 0);
	(void)snprintf(header + 116, 8, "%07o", 0);
	(void)snprintf(header + 124, 12, "%011zo", len);
	(void)snprintf(header + 136, 12, "%011o", 0);
	header[156] = '0';
	memcpy(header + 257, "ustar\00000", 8);
	memset(header + 148, ' ', 8);
	for (size_t i = 0; i < sizeof(header); i++)
		sum += (unsigned char)header[i];
	(void)snprintf(header + 148, 7, "%06o", sum);
	memset(padded, 0, sizeof(padded));
	memcpy(padded, bytes, len);
	for (unsigned i = 0; i < count; i++) {
		(void)fwrite(header, 1, sizeof(header), file);
		if (len)
			(void)fwrite(padded, 1, sizeof(padded), file);
	}
	memset(padded, 0, sizeof(padded));
	(void)fwrite(padded, 1, sizeof(padded), file);
	(void)fwrite(padded, 1, sizeof(padded), file);
	cr_assert_eq(fclose(file), 0);
}

Test(worker_package, too_many_entries_and_too_many_elf_files_are_refused)
{
	struct spawn_limits limits = run_limits();

	write_many(PACKAGE_ELF_MAX + 1, "\177ELFxx", 6);
	expect_failed("many.deb", NULL, "more than 16384 ELF files");
	write_many(PACKAGE_ENTRIES_MAX + 1, "", 0);
	expect_failed("many.deb", NULL, "more than 262144 entries");
	write_many(3, "\177ELFxx", 6);
	struct spawn_report report = run_package("many.deb", &limits, &seen);
	cr_assert_eq(report.outcome, SPAWN_DONE, "%s", report.reason);
	cr_assert_eq(seen.skipped, 3);
}

/* As Debian's -dbg packages have it. */
Test(worker_package, debug_files_find_their_supplement_in_the_package)
{
	struct spawn_limits limits = run_limits();

	run_shell("cp sample one && cp sample two && dwz -m common.dwz -M /usr/lib/debug/.dwz/x86_64-linux-gnu/x.debug one two && "
		  "objcopy --only-keep-debug one root/usr/lib/debug/.build-id/ab/cdef.debug && mkdir -p root/usr/lib/debug/.dwz/x86_64-linux-gnu && "
		  "cp common.dwz root/usr/lib/debug/.dwz/x86_64-linux-gnu/x.debug && rm root/usr/bin/* && "
		  "dpkg-deb --root-owner-group -b root x.deb >/dev/null");
	struct spawn_report report = run_package("x.deb", &limits, &seen);
	cr_assert_eq(report.outcome, SPAWN_DONE, "%s", report.reason);
	cr_assert_eq(seen.count, 1);
	cr_expect_eq(seen.skipped, 0, "%s", seen.skipped_text);
	cr_expect_null(strstr(seen.results[0].facts.stats, "not here"), "%s", seen.results[0].facts.stats);
}

Test(worker_package, a_supplement_that_is_elsewhere_is_asked_for_and_taken_from_a_file_or_another_package)
{
	struct spawn_limits limits = run_limits();

	run_shell("cp sample one && cp sample two && dwz -m common.dwz -M /usr/lib/debug/.dwz/x86_64-linux-gnu/x.debug one two && "
		  "objcopy --only-keep-debug one root/usr/lib/debug/.build-id/ab/cdef.debug && rm root/usr/bin/* && "
		  "dpkg-deb --root-owner-group -b root x.deb >/dev/null && rm -r root/usr && mkdir -p root/usr/lib/debug/.dwz/x86_64-linux-gnu && "
		  "cp common.dwz root/usr/lib/debug/.dwz/x86_64-linux-gnu/x.debug && dpkg-deb --root-owner-group -b root sibling.deb >/dev/null");
	struct spawn_report report = run_package("x.deb", &limits, &seen);
	cr_assert_eq(report.outcome, SPAWN_NEEDS, "%s: %s", spawn_outcome_name(report.outcome), report.reason);
	cr_expect_str_eq(report.needs.name, "/usr/lib/debug/.dwz/x86_64-linux-gnu/x.debug");
	cr_expect_eq(seen.count, 0);
	const struct run_package with[] = {{.package = "x.deb", .sibling = "sibling.deb"}, {.package = "x.deb", .supplement = "common.dwz"},
		{.package = "x.deb", .alone = true}};
	for (size_t i = 0; i < ARRAY_SIZE(with); i++) {
		report = run_package_with(&with[i], &limits, &seen);
		cr_assert_eq(report.outcome, SPAWN_DONE, "%s", report.reason);
		cr_assert_eq(seen.count, 1);
		cr_expect_eq(strstr(seen.results[0].facts.stats, "x.debug, which is not here") != NULL, with[i].alone, "%s",
			seen.results[0].facts.stats);
	}
}

/* How many inlined calls the table of the one result has: with its split DWARF as a .dwp file at @p place, or what else lies there. */
static unsigned long long inlined_with_split_at(const char *place)
{
	struct spawn_limits limits = run_limits();
	char command[512];
	unsigned long long inlined = 0;

	(void)snprintf(command, sizeof(command),
		"rm -rf root/usr && mkdir -p root/usr/bin root/usr/lib/debug/usr/bin root/usr/lib/debug/.build-id/ab && "
		"cp split.stripped root/usr/bin/sample && cp split.debug root/usr/lib/debug/.build-id/ab/cdef.debug && "
		"cp split.dwp root/%s && dpkg-deb --root-owner-group -b root x.deb >/dev/null",
		place);
	run_shell(command);
	struct spawn_report report = run_package("x.deb", &limits, &seen);
	cr_assert_eq(report.outcome, SPAWN_DONE, "%s", report.reason);
	cr_assert_eq(seen.count, 1);
	const char *stats = strstr(seen.results[0].facts.stats, "inline_nodes=");
	cr_assert(stats && sscanf(stats, "inline_nodes=%llu", &inlined) == 1, "%s", seen.results[0].facts.stats);
	return inlined;
}

Test(worker_package, split_dwarf_in_the_package_is_found_by_its_name_or_else_by_its_units)
{
	static const char *const places[] = {"usr/bin/sample.dwp", "usr/lib/debug/.build-id/ab/cdef.debug.dwp", "usr/lib/debug/.build-id/ab/cdef.dwp",
		"usr/lib/debug/usr/bin/anything"};

	run_shell("g++ -gdwarf-4 -gsplit-dwarf -O1 -fPIE -pie -Wl,--build-id=sha1 " SAMPLE_SOURCE " -o split && dwp -e split -o split.dwp && "
		  "objcopy --strip-all split split.stripped && objcopy --only-keep-debug split split.debug");
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		cr_expect_gt(inlined_with_split_at(places[i]), 0, "%s", places[i]);
		cr_expect_eq(seen.skipped, 0, "%s: %s", places[i], seen.skipped_text);
	}
	run_shell("echo no more > split.dwp");
	cr_expect_eq(inlined_with_split_at("usr/bin/sample.dwp"), 0);
	cr_expect_eq(seen.skipped, 1);
	cr_expect_not_null(strstr(seen.skipped_text, "split DWARF is missing"), "%s", seen.skipped_text);
}

/* Programs `one` and `two` in a package, with these files as one.dwp and two.dwp. How many of them lack names. */
static size_t lacking(const char *one_dwp, const char *two_dwp)
{
	struct spawn_limits limits = run_limits();
	char command[512];

	(void)snprintf(command, sizeof(command),
		"rm -rf root/usr && mkdir -p root/usr/bin && cp one two root/usr/bin && cp %s root/usr/bin/one.dwp && cp %s root/usr/bin/two.dwp && "
		"dpkg-deb --root-owner-group -b root x.deb >/dev/null",
		one_dwp, two_dwp);
	run_shell(command);
	struct spawn_report report = run_package("x.deb", &limits, &seen);
	cr_assert_eq(report.outcome, SPAWN_DONE, "%s", report.reason);
	cr_assert_eq(seen.count, 2);
	return seen.skipped;
}

Test(worker_package, of_two_programs_each_is_built_with_the_split_dwarf_of_its_name)
{
	run_shell("for n in 1 2; do g++ -gdwarf-4 -gsplit-dwarf -O$n -fPIE -pie -Wl,--build-id=sha1 " SAMPLE_SOURCE " -o $n && dwp -e $n -o $n.dwp; done && "
		  "mv 1 one && mv 2 two");
	cr_expect_eq(lacking("1.dwp", "2.dwp"), 0, "%s", seen.skipped_text);
	cr_expect_eq(lacking("2.dwp", "1.dwp"), 2, "%s", seen.skipped_text);
}

/* `bare` is another program beside the pair of `sample` and its debug file. */
static void write_wanted(const char *of)
{
	char command[256];

	(void)snprintf(command, sizeof(command), "readelf -n %s | sed -n 's/.*Build ID: //p' > wanted; test -s wanted", of);
	run_shell(command);
}

Test(worker_package, only_what_is_wanted_is_built_and_of_the_other_programs_it_is_told_who_they_are)
{
	struct spawn_limits limits = run_limits();
	const struct run_package with = {.package = "x.deb", .wanted = "wanted"};

	run_shell("cp " BARE " root/usr/bin/bare && mv root/usr/lib/debug/.build-id/ab/cdef.debug root/usr/lib/debug/any && "
		  "dpkg-deb --root-owner-group -b root x.deb >/dev/null");
	write_wanted("sample");
	struct spawn_report report = run_package_with(&with, &limits, &seen);
	cr_assert_eq(report.outcome, SPAWN_DONE, "%s", report.reason);
	cr_assert_eq(seen.count, 2);
	for (size_t i = 0; i < 2; i++) {
		const struct run_result *result = &seen.results[i];
		bool bare = strcmp(result->facts.name, "usr/bin/bare") == 0;
		cr_expect_eq(result->table_len == 0, bare, "%s", result->facts.name);
		cr_expect_eq(result->facts.has_debug, !bare);
		cr_expect_gt(result->facts.segments.count, 0);
	}
}

Test(worker_package, debug_files_that_nobody_wants_give_nothing_whatever_their_name)
{
	struct spawn_limits limits = run_limits();
	const struct run_package with = {.package = "x.deb", .wanted = "wanted"};

	run_shell("rm root/usr/bin/*; mv root/usr/lib/debug/.build-id/ab/cdef.debug root/usr/lib/debug/any && "
		  "dpkg-deb --root-owner-group -b root x.deb >/dev/null");
	write_wanted(BARE);
	struct spawn_report report = run_package_with(&with, &limits, &seen);
	cr_assert_eq(report.outcome, SPAWN_DONE, "%s", report.reason);
	cr_assert_eq(seen.count + seen.skipped, 0);
	write_wanted("debug");
	report = run_package_with(&with, &limits, &seen);
	cr_assert_eq(seen.count, 1, "%s", report.reason);
	run_shell("mkdir -p root/usr/lib/debug/.build-id/ab && mv root/usr/lib/debug/any root/usr/lib/debug/.build-id/ab/cdef.debug && "
		  "dpkg-deb --root-owner-group -b root x.deb >/dev/null"); /* its name speaks of another build */
	report = run_package_with(&with, &limits, &seen);
	cr_assert_eq(seen.count, 0, "%s", report.reason);
}

Test(worker_package, a_list_of_wanted_files_that_is_none_is_refused)
{
	struct spawn_limits limits = run_limits();
	const struct run_package with = {.package = "x.deb", .wanted = "wanted"};

	run_shell("echo nonsense > wanted; dpkg-deb --root-owner-group -b root x.deb >/dev/null");
	cr_assert_eq(run_package_with(&with, &limits, &seen).outcome, SPAWN_FAILED);
}
