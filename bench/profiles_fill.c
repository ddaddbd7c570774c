// SPDX-License-Identifier: Apache-2.0
/*
 * What samples cost: fills a profiles store with hours of real-shaped samples (workload.h) in batches as agents send them, seals it,
 * and says how many bytes a core and day take, how fast the writer is, and what a flame graph of all of it takes, cold and warm.
 *
 *     profiles_fill DIR [--cpus 64] [--hz 20] [--seconds 3600] [--traces 50000] [--interval 5] [--seed 1] [--json FILE]
 *
 * Time is made up (the store is given a clock), everything else is the real thing: each batch is committed with fsync. Every sample has a
 * time, a thread, a CPU. The resolver is made up too: two frames of three have one function, the third an inlined one inside.
 */
#include "bench/workload.h"
#include "profiles/samples_internal.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#define START_S (1790000000ull / 3600 * 3600)

struct fill_options {
	const char *dir, *json;
	uint32_t cpus, hz, seconds, traces, interval;
	uint64_t seed;
};

static atomic_ullong clock_ms;

static uint64_t clock_read(void *context)
{
	(void)context;
	return atomic_load(&clock_ms);
}

static _Noreturn void die(struct err *e)
{
	(void)fprintf(stderr, "profiles_fill: %s\n", err_message(e));
	exit(1);
}

static void must(struct err *e)
{
	if (e)
		die(e);
}

static double seconds_of(clockid_t id)
{
	struct timespec now;

	(void)clock_gettime(id, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double seconds_now(void)
{
	return seconds_of(CLOCK_MONOTONIC);
}

/* Of all threads: while one waits for the other, that of the other. */
static double cpu_now(void)
{
	return seconds_of(CLOCK_PROCESS_CPUTIME_ID);
}

/* -------------------------------------------------------------------------------------- filling */

/* Numbers of the batch at hand for what the workload has; SAMPLES_NONE: not brought yet. */
struct brought {
	uint32_t *executables, *frames, *traces, *processes, *threads;
};

static uint32_t *numbers(uint32_t count)
{
	uint32_t *items = malloc((count + 1) * sizeof(*items));

	if (!items)
		die(err_nomem());
	return items;
}

static void forget(struct brought *b, const struct workload *w)
{
	memset(b->executables, 0xff, w->options.executables * sizeof(uint32_t));
	memset(b->frames, 0xff, w->frame_count * sizeof(uint32_t));
	memset(b->traces, 0xff, w->options.traces * sizeof(uint32_t));
	memset(b->processes, 0xff, w->options.processes * sizeof(uint32_t));
	memset(b->threads, 0xff, w->thread_count * sizeof(uint32_t));
}

static struct samples_text text(const char *bytes)
{
	return (struct samples_text){bytes, strlen(bytes)};
}

static uint32_t bring_executable(struct samples_batch *batch, struct brought *b, const struct workload *w, uint32_t number)
{
	const struct workload_executable *e = &w->executables[number];
	struct samples_mapping mapping = {.name = text(e->name), .build_id = {.len = sizeof(e->build_id)}};

	if (b->executables[number] != SAMPLES_NONE)
		return b->executables[number];
	memcpy(mapping.file_id.bytes, e->file_id, sizeof(e->file_id));
	memcpy(mapping.build_id.bytes, e->build_id, sizeof(e->build_id));
	must(samples_batch_mapping(batch, &mapping, &b->executables[number]));
	return b->executables[number];
}

static uint32_t bring_frame(struct samples_batch *batch, struct brought *b, const struct workload *w, uint32_t number)
{
	static const enum profile_frame_kind kinds[] = {[WORKLOAD_NATIVE] = PROFILE_FRAME_NATIVE,
		[WORKLOAD_KERNEL] = PROFILE_FRAME_KERNEL,
		[WORKLOAD_GO] = PROFILE_FRAME_NATIVE,
		[WORKLOAD_PYTHON] = PROFILE_FRAME_INTERPRETED};
	const struct workload_frame *f = &w->frames[number];
	struct samples_location location = {.kind = kinds[f->kind], .mapping = SAMPLES_NONE};
	char name[WORKLOAD_NAME_SIZE], file[WORKLOAD_NAME_SIZE];
	struct samples_line line;

	if (b->frames[number] != SAMPLES_NONE)
		return b->frames[number];
	if (f->kind != WORKLOAD_PYTHON) {
		location.mapping = bring_executable(batch, b, w, f->executable);
		location.address = f->address;
	}
	if (f->kind != WORKLOAD_NATIVE) {
		workload_function(w, f->function, name);
		workload_file(w, f->function, file);
		line = (struct samples_line){.function = text(name), .file = text(file), .line = file[0] ? f->line : 0};
		location.lines = &line;
		location.line_count = 1;
	}
	must(samples_batch_location(batch, &location, &b->frames[number]));
	return b->frames[number];
}

static uint32_t bring_trace(struct samples_batch *batch, struct brought *b, const struct workload *w, uint32_t number)
{
	const struct workload_trace *t = &w->traces[number];
	uint32_t locations[PROFILE_MAX_DEPTH];

	if (b->traces[number] != SAMPLES_NONE)
		return b->traces[number];
	for (uint32_t i = 0; i < t->depth; i++)
		locations[i] = bring_frame(batch, b, w, t->frames[i]);
	must(samples_batch_trace(batch, locations, t->depth, &b->traces[number]));
	return b->traces[number];
}

static uint32_t bring_labels(struct samples_batch *batch, struct brought *b, const struct workload *w, uint32_t number)
{
	const struct workload_thread *t = &w->threads[number];
	const struct workload_process *p = &w->processes[t->process];
	char pid[16], tid[16];

	if (b->threads[number] != SAMPLES_NONE)
		return b->threads[number];
	if (b->processes[t->process] == SAMPLES_NONE) {
		(void)snprintf(pid, sizeof(pid), "%u", p->pid);
		struct samples_label labels[] = {{text(SAMPLES_LABEL_HOST), text("node-17.example")}, {text(SAMPLES_LABEL_SERVICE), text(p->service)},
			{text(SAMPLES_LABEL_CONTAINER), text(p->container)}, {text(SAMPLES_LABEL_PID), text(pid)},
			{text(SAMPLES_LABEL_EXECUTABLE), text(w->executables[p->executable].name)}};
		must(samples_batch_labels(batch, SAMPLES_NONE, labels, ARRAY_SIZE(labels), &b->processes[t->process]));
	}
	(void)snprintf(tid, sizeof(tid), "%u", t->tid);
	struct samples_label labels[] = {{text(SAMPLES_LABEL_TID), text(tid)}, {text(SAMPLES_LABEL_COMM), text(t->name)}};
	must(samples_batch_labels(batch, b->processes[t->process], labels, 2, &b->threads[number]));
	return b->threads[number];
}

/* One report of the agent. */
static void fill_batch(struct samples_batch *batch, struct brought *b, const struct workload *w, const struct workload_sample *from, size_t count)
{
	struct samples_type type = {text("samples"), text("count"), text("cpu"), text("nanoseconds"), 1000000000 / (int64_t)w->options.hz};
	uint32_t type_number;

	forget(b, w);
	must(samples_batch_profile(batch, NULL));
	must(samples_batch_type(batch, &type, &type_number));
	for (size_t i = 0; i < count; i++) {
		struct samples_sample sample = {.trace = bring_trace(batch, b, w, from[i].trace),
			.labels = bring_labels(batch, b, w, from[i].thread),
			.type = type_number,
			.cpu = (int32_t)from[i].cpu,
			.exact = true,
			.time_unix_nano = from[i].time_unix_nano,
			.value = 1};
		must(samples_batch_add(batch, &sample));
	}
}

static void fill(struct samples *samples, struct workload *w, const struct fill_options *o)
{
	struct brought b = {numbers(w->options.executables), numbers(w->frame_count), numbers(w->options.traces), numbers(w->options.processes),
		numbers(w->thread_count)};
	uint64_t report_ns = o->interval * UINT64_C(1000000000);
	size_t cap = workload_report_max(w, report_ns);
	struct workload_sample *report = calloc(cap, sizeof(*report));
	double building = 0, writing = 0, building_cpu = 0, writing_cpu = 0;
	uint64_t count = 0;

	if (!report)
		die(err_nomem());
	for (uint32_t second = 0; second < o->seconds; second += o->interval) {
		struct samples_batch *batch;
		struct samples_result result;
		double start = seconds_now(), start_cpu = cpu_now();
		atomic_store(&clock_ms, (START_S + second + o->interval) * 1000);
		must(samples_batch_create(samples, 1, &batch));
		fill_batch(batch, &b, w, report, workload_report(w, report_ns, report, cap));
		double built = seconds_now(), built_cpu = cpu_now();
		must(samples_commit_wait(&batch, &result));
		building += built - start;
		writing += seconds_now() - built;
		building_cpu += built_cpu - start_cpu;
		writing_cpu += cpu_now() - built_cpu;
		count += result.samples;
	}
	(void)printf("samples           %llu in batches of %u s\n", (unsigned long long)count, o->interval);
	(void)printf("generate + batch  %.2f s (%.2f s CPU), %.2f M samples/s CPU\n", building, building_cpu, (double)count / building_cpu / 1e6);
	(void)printf("commit + merge    %.2f s (%.2f s CPU), %.2f M samples/s CPU\n", writing, writing_cpu, (double)count / writing_cpu / 1e6);
	free(report);
	free(b.executables);
	free(b.frames);
	free(b.traces);
	free(b.processes);
	free(b.threads);
}

/* -------------------------------------------------------------------------------------- bytes */

static void print_bytes(struct samples *samples, const char *what, const struct fill_options *o)
{
	struct store_read *read;
	struct store_scan *scan;
	struct store_view key, value;
	uint64_t bytes[256] = {0}, counts[256] = {0}, used, file;
	double core_days = (double)o->cpus * o->seconds / 86400;

	must(store_read_begin(samples->store, &read));
	must(store_profiles_scan(store_profiles_read(read), STORE_BLOCKS, NULL, 0, NULL, 0, &scan));
	for (;;) {
		must(store_profiles_next(scan, &key, &value));
		if (!key.bytes)
			break;
		bytes[key.bytes[PARTITION_KEY_BYTES]] += value.len;
		counts[key.bytes[PARTITION_KEY_BYTES]]++;
	}
	must(store_profiles_bytes(read, &used, &file));
	store_profiles_scan_end(scan);
	store_read_end(read);
	(void)printf("%s: dictionary %llu B in %llu blocks, samples %llu B in %llu, exact times %llu B in %llu\n", what,
		(unsigned long long)bytes['D'], (unsigned long long)counts['D'], (unsigned long long)bytes['S'], (unsigned long long)counts['S'],
		(unsigned long long)bytes['T'], (unsigned long long)counts['T']);
	(void)printf("  a core and day  %.3f MB dictionary + %.3f MB samples = %.3f MB; LMDB pages in use %.3f MB; file %llu B\n",
		(double)bytes['D'] / core_days / 1e6, (double)bytes['S'] / core_days / 1e6,
		(double)(bytes['D'] + bytes['S']) / core_days / 1e6, (double)used / core_days / 1e6, (unsigned long long)file);
}

/* -------------------------------------------------------------------------------------- reading */

static struct err *resolve(void *context, uint32_t tenant, const struct samples_module *module, const struct samples_address *addresses,
	size_t count, struct samples_answers *answers)
{
	(void)context;
	(void)tenant;
	for (size_t i = 0; i < count; i++) {
		char function[96], inlined[96], file[96];
		uint64_t number = addresses[i].value / 397;
		(void)snprintf(function, sizeof(function), "ns::%s::function_%llu(int, char const*)", module->name, (unsigned long long)number);
		(void)snprintf(inlined, sizeof(inlined), "ns::%s::inlined_%llu()", module->name, (unsigned long long)(number / 7));
		(void)snprintf(file, sizeof(file), "/usr/src/%s/file_%llu.cc", module->name, (unsigned long long)(number / 20));
		struct samples_symbol frames[2] = {{inlined, inlined, file, 12, 3, 10}, {function, function, file, (uint32_t)(number % 900), 5, 1}};
		bool both = addresses[i].value % 3 == 0;
		TRY(samples_answer(answers, i, addresses[i].value, both ? frames : frames + 1, both ? 2 : 1));
	}
	return NULL;
}

static void query(struct samples *samples, const char *what, const struct fill_options *o, struct samples_query q, const char *json)
{
	struct samples_resolver resolver = {.resolve = resolve};
	struct samples_query_stat stat;
	struct profile profile;
	struct buf text = {0};
	double start = seconds_now(), start_cpu = cpu_now();

	q.tenant = 1;
	must(samples_query(samples, &q, &resolver, &profile, &stat));
	double read = seconds_now();
	must(profile_write_json(&profile, &text));
	double end = seconds_now();
	(void)printf("%-18s %7.1f ms (CPU %.1f): read %.1f, resolve %.1f, expand %.1f, JSON %.1f (%.1f MB); %llu samples, %llu rows, %llu traces, %llu locations\n",
		what, (end - start) * 1e3, (cpu_now() - start_cpu) * 1e3, (double)stat.read_ns / 1e6, (double)stat.resolve_ns / 1e6, (double)stat.expand_ns / 1e6,
		(end - read) * 1e3, (double)text.len / 1e6, (unsigned long long)stat.samples, (unsigned long long)stat.rows,
		(unsigned long long)stat.traces, (unsigned long long)stat.locations);
	FILE *out = json ? fopen(json, "w") : NULL;
	if (out) {
		(void)fwrite(text.data, 1, text.len, out);
		(void)fclose(out);
	}
	(void)o;
	profile_deinit(&profile);
	buf_deinit(&text);
}

/* Drops the data file from the page cache. */
static void make_cold(const struct fill_options *o)
{
	char path[512];

	(void)snprintf(path, sizeof(path), "%s/profiles/data.mdb", o->dir);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED))
		(void)fprintf(stderr, "profiles_fill: %s could not be dropped from the cache\n", path);
	closep(&fd);
}

static void read_all(struct samples_options *options, const struct fill_options *o)
{
	struct samples *samples;
	struct samples_text service = text("service.name");
	struct samples_label filter = {text("service"), text("service-1")};

	make_cold(o);
	must(samples_open(options, &samples));
	query(samples, "all, cold", o, (struct samples_query){0}, NULL);
	for (int i = 0; i < 3; i++)
		query(samples, "all, warm", o, (struct samples_query){0}, i == 0 ? o->json : NULL);
	query(samples, "one service", o, (struct samples_query){.filters = &filter, .filter_count = 1}, NULL);
	query(samples, "by service", o, (struct samples_query){.group_by = &service, .group_count = 1}, NULL);
	query(samples, "10 minutes of it", o,
		(struct samples_query){.from_unix_nano = (START_S + o->seconds / 2) * 1000000000, .to_unix_nano = (START_S + o->seconds / 2 + 600) * 1000000000}, NULL);
	samples_close(samples);
}

static void parse(int argc, char **argv, struct fill_options *o)
{
	static const struct option options[] = {{"cpus", required_argument, NULL, 'c'}, {"hz", required_argument, NULL, 'h'},
		{"seconds", required_argument, NULL, 's'}, {"traces", required_argument, NULL, 't'}, {"interval", required_argument, NULL, 'i'},
		{"seed", required_argument, NULL, 'r'}, {"json", required_argument, NULL, 'j'}, {0}};

	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		uint32_t number = optarg ? (uint32_t)strtoul(optarg, NULL, 10) : 0;
		switch (c) {
		case 'c':
			o->cpus = number;
			break;
		case 'h':
			o->hz = number;
			break;
		case 's':
			o->seconds = number;
			break;
		case 't':
			o->traces = number;
			break;
		case 'i':
			o->interval = number;
			break;
		case 'r':
			o->seed = number;
			break;
		case 'j':
			o->json = optarg;
			break;
		default:
			exit(2);
		}
	}
	if (optind != argc - 1 || !o->cpus || !o->hz || !o->seconds || !o->interval) {
		(void)fprintf(stderr, "usage: profiles_fill [options] DIR, an empty or absent folder\n");
		exit(2);
	}
	o->dir = argv[optind];
}

int main(int argc, char **argv)
{
	struct fill_options o = {.cpus = 64, .hz = 20, .seconds = 3600, .traces = 50000, .interval = 5, .seed = 1};
	struct samples *samples;

	parse(argc, argv, &o);
	const struct workload_options options_w = {.seed = o.seed, .cpus = o.cpus, .hz = o.hz, .traces = o.traces,
		.processes = o.cpus * 4 > 40 ? o.cpus * 4 : 40, .start_unix_nano = START_S * 1000000000, .busy = true};
	struct workload *w;
	must(workload_create(&options_w, &w));
	(void)printf("%u CPUs, %u Hz, %u s: %u stacks of %.1f frames on the average, %u call sites, %u executables, %u processes, %u threads\n",
		o.cpus, o.hz, o.seconds, w->options.traces, w->depth_mean, w->frame_count, w->options.executables, w->options.processes,
		w->thread_count);
	atomic_store(&clock_ms, START_S * 1000);
	struct samples_options options = {.data_dir = o.dir, .now_ms = clock_read};
	must(samples_open(&options, &samples));
	fill(samples, w, &o);
	workload_destroy(w);
	print_bytes(samples, "as committed", &o);
	/* Past raw_for and seal_after: exact times go, partitions are sealed. */
	atomic_store(&clock_ms, (START_S + o.seconds + 2 * 3600 + 1) * 1000);
	double start = seconds_now();
	samples_tend(samples);
	(void)printf("seal              %.2f s\n", seconds_now() - start);
	print_bytes(samples, "sealed", &o);
	samples_close(samples);
	read_all(&options, &o);
	struct rusage usage;
	(void)getrusage(RUSAGE_SELF, &usage);
	(void)printf("largest memory    %ld MB\n", usage.ru_maxrss / 1024);
	return 0;
}
