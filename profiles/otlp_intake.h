// SPDX-License-Identifier: Apache-2.0
/*
 * From an opened OTLP request to a batch of samples (profiles/samples.h): what each profile,
 * sample, location and attribute means. docs/otlp.md says it for people.
 *
 * A fault belongs to the profile that has it: that profile is left out and counted, its neighbours
 * are taken. Nothing is kept of the request: the batch copies.
 */
#ifndef CAIRN_PROFILES_OTLP_INTAKE_H
#define CAIRN_PROFILES_OTLP_INTAKE_H

#include "profiles/otlp.h"
#include "profiles/samples.h"

enum {
	OTLP_PROFILE_SAMPLES_MAX = 4 << 20, /* of one profile */
	OTLP_SAMPLE_TYPES_MAX = 16,         /* of one profile of 1.7 */
	OTLP_RESOURCE_LABELS_MAX =
		96, /* attributes of a resource that become labels; the rest is dropped, and told */
	OTLP_SAMPLE_LABELS_MAX = 32, /* likewise of a profile and of a sample together */
	OTLP_MESSAGE_SIZE = 512,
	OTLP_SENDERS_MAX = 32, /* of one request; further ones count as the last */
};

/* A file that the mappings name, for what the symbol store learns from it. */
struct otlp_module {
	struct fileid file_id;    /* zeroes: unknown */
	struct build_id build_id; /* len 0: none */
	struct otlp_text name;    /* borrowed from the message */
};

/* Who sent some of the profiles: the instrumentation scope, and the host of the resource. Texts are borrowed from the message. */
struct otlp_sender {
	struct otlp_text name, version; /* of the scope, else of the resource's telemetry.sdk */
	struct otlp_text host, host_id, machine, os; /* host.name (else k8s.node.name), host.id, host.arch, os.description */
	struct otlp_text node;
	struct otlp_text kernel; /* os.kernel.release, host.kernel.release, else what os.description says: uname -r */
	uint64_t samples; /* handed to the batch */
};

struct otlp_intake_result {
	uint64_t profiles;               /* handed to the batch */
	uint64_t rejected_profiles;      /* left out for a fault */
	uint64_t samples;                /* handed to the batch */
	uint64_t empty_samples;          /* without values and timestamps: nothing was counted */
	uint64_t dropped_labels;         /* past the limits above */
	char message[OTLP_MESSAGE_SIZE]; /* the first fault: "profile 3: sample 7: stack 99 of 12";
					    "" when there is none */
	struct otlp_sender senders[OTLP_SENDERS_MAX]; /* of profiles that were taken; no two say the same */
	uint32_t sender_count;
	const struct otlp_module *modules; /* in the arena; equal ones once */
	size_t module_count;
};

/**
 * Puts every profile of a request into @p batch.
 * @param arena     scratch, and ret->modules; may be the request's own
 * @param now_unix_nano  the time of samples that say none (and whose profile says none)
 * @return NULL, also when profiles were rejected; ERR_LIMIT: the batch is full; ERR_NOMEM. After an
 * error the batch is of no use. Thread: one for a batch. Cost: two passes over the samples, one
 * decode of each dictionary element in use.
 */
struct err *otlp_intake(const struct otlp_request *request, struct arena *arena,
	uint64_t now_unix_nano, struct samples_batch *batch,
	struct otlp_intake_result *ret) MUST_USE;

#endif
