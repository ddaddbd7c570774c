// SPDX-License-Identifier: GPL-2.0
/*
 * The maps of agent/sample.bpf.c, the counters, and what the unwinder reads through (agent/unwind/core.h).
 *
 * A table that grows is an array of maps whose inner arrays have all one size, so that the verifier turns both look-ups into
 * plain loads. A chunk that is not there reads as "nothing known".
 */
#ifndef CAIRN_AGENT_BPF_MAPS_H
#define CAIRN_AGENT_BPF_MAPS_H

#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_helpers.h>

#include "agent/shared.h"
#include "agent/unwind/core.h"

#define ALWAYS static __attribute__((always_inline)) inline

enum { SLOTS = UNWIND_FRAMES_MAX + SAMPLE_KERNEL_MAX + 1 };

/* One a CPU and kind of sample: a tick may fall into a probe, and a switch follows either. */
struct scratch {
	struct unwind_run run; /* first: the unwinder's hooks come back from it */
	__u32 busy;	       /* being filled (probes: they can be preempted) */
	__u32 reserved;
	struct sample_head head;
	__u64 frames[SLOTS + (sizeof(struct sample_cut) + SAMPLE_CUT_BYTES) / sizeof(__u64)];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SAMPLE_KINDS);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SAMPLE_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* set before loading */
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SAMPLE_PROCESSES);
	__type(key, __u32);
	__type(value, struct sample_process);
} processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SAMPLE_OFF_CPU_THREADS);
	__type(key, __u32);
	__type(value, struct sample_off_cpu);
} off_cpu SEC(".maps");

/* One place each: the program that goes on with a stack, for kernels without bpf_loop. */
#define PROGRAMS(name)                                                                             \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_PROG_ARRAY);                                             \
		__uint(max_entries, 1);                                                            \
		__type(key, __u32);                                                                \
		__type(value, __u32);                                                              \
	} name SEC(".maps")
PROGRAMS(tick_programs);
PROGRAMS(switch_programs);
PROGRAMS(probe_programs);

/* Two deltas a value: an array's values are multiples of 8 bytes. */
struct delta_pair {
	struct unwind_delta items[2];
};

#define CHUNK(name, value_type, entries)                                                           \
	struct name {                                                                              \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                  \
		__uint(map_flags, BPF_F_MMAPABLE);                                                 \
		__uint(max_entries, entries);                                                      \
		__uint(key_size, 4);                                                               \
		__uint(value_size, sizeof(value_type));                                            \
	}
CHUNK(mapping_chunk, struct unwind_mapping, SAMPLE_CHUNK_MAPPINGS);
CHUNK(page_chunk, struct unwind_page, SAMPLE_CHUNK_PAGES);
CHUNK(delta_chunk, struct delta_pair, SAMPLE_CHUNK_DELTAS / 2);

/* The number of chunks is set before loading. */
#define CHUNKS(name, chunk_type)                                                                   \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);                                          \
		__uint(max_entries, 1);                                                            \
		__type(key, __u32);                                                                \
		__array(values, struct chunk_type);                                                \
	} name SEC(".maps")
CHUNKS(mappings, mapping_chunk);
CHUNKS(pages, page_chunk);
CHUNKS(deltas, delta_chunk);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, UNWIND_EXES_MAX);
	__type(key, __u32);
	__type(value, struct unwind_exe);
} exes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, UNWIND_INFOS_MAX);
	__type(key, __u32);
	__type(value, struct unwind_info);
} infos SEC(".maps");

ALWAYS void count(__u32 counter)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &counter);
	if (value)
		*value += 1;
}

ALWAYS struct scratch *scratch_of(__u32 kind)
{
	return bpf_map_lookup_elem(&scratches, &kind);
}

/* Item @index of a table that grows, or NULL. A macro: map pointers must be constants to the verifier. */
#define ITEM(table, chunk_items, index)                                                            \
	({                                                                                         \
		__u32 chunk_ = (index) / (chunk_items), at_ = (index) % (chunk_items);             \
		void *inner_ = bpf_map_lookup_elem(&(table), &chunk_);                             \
		inner_ ? bpf_map_lookup_elem(inner_, &at_) : (void *)0;                            \
	})

ALWAYS const struct unwind_mapping *unwind_mapping_at(struct unwind_run *run, __u32 index)
{
	return ITEM(mappings, SAMPLE_CHUNK_MAPPINGS, index);
}

ALWAYS const struct unwind_exe *unwind_exe_at(struct unwind_run *run, __u32 exe)
{
	return bpf_map_lookup_elem(&exes, &exe);
}

ALWAYS const struct unwind_page *unwind_page_at(struct unwind_run *run, __u32 index)
{
	return ITEM(pages, SAMPLE_CHUNK_PAGES, index);
}

ALWAYS int unwind_delta_at(struct unwind_run *run, __u32 index, struct unwind_delta *ret)
{
	const struct delta_pair *pair = ITEM(deltas, SAMPLE_CHUNK_DELTAS / 2, index / 2);
	if (!pair)
		return -1;
	*ret = index & 1 ? pair->items[1] : pair->items[0];
	return 0;
}

ALWAYS const struct unwind_info *unwind_info_at(struct unwind_run *run, __u32 index)
{
	return bpf_map_lookup_elem(&infos, &index);
}

ALWAYS int unwind_read(struct unwind_run *run, __u64 address, __u64 *ret)
{
	return bpf_probe_read_user(ret, sizeof(*ret), (const void *)address) ? -1 : 0;
}

ALWAYS void unwind_store(struct unwind_run *run, __u32 at, __u64 frame)
{
	struct scratch *scratch = (struct scratch *)run;
	scratch->frames[at & (UNWIND_FRAMES_MAX - 1)] = frame;
}

#endif
