// SPDX-License-Identifier: Apache-2.0
/*
 * Flights of which one is enough (fetch_cancel): who is furthest ahead leads, and the others are held once they have FETCH_AHEAD_BYTES,
 * so that several fast servers do not all send a file of which one copy is wanted. They are let go when the leader ends, brings nothing for
 * STALE_MS, or is slow: then whoever overtakes it leads. For CLAIM_MS after the leader has come they stay held: its file is being looked at,
 * and if it is the right one they are given up.
 *
 * Held means that libcurl does not read from the socket, so the sender sends no more than the buffers on the way take.
 */
#include "sources/flight.h"

enum { WINDOW_MS = 1000, STALE_MS = 2000, CLAIM_MS = 500 };

static void lead(struct fetch_cancel *race, const struct flight *flight, uint64_t now_ms)
{
	race->lead = flight;
	race->window_ms = now_ms;
	race->window_bytes = 0;
	race->is_slow = false;
}

void race_leave(struct flight *flight)
{
	struct fetch_cancel *race = flight->race;

	if (race && race->lead == flight) {
		race->lead = NULL;
		if (flight->state == DONE && flight->result.answer == FETCH_OK)
			race->claim_until_ms = fetch_now_ms() + CLAIM_MS;
	}
	flight->race = NULL;
}

/* One that waits for another attempt, or has ended badly, leads no more. */
static bool is_leading(const struct flight *flight)
{
	return flight && (flight->state == FLYING || (flight->state == DONE && flight->result.answer == FETCH_OK));
}

void race_moved(struct flight *flight, uint64_t bytes, uint64_t now_ms)
{
	struct fetch_cancel *race = flight->race;

	if (!race || race->lead != flight)
		return;
	race->window_bytes += bytes;
	uint64_t ms = now_ms - race->window_ms;
	if (ms < WINDOW_MS)
		return;
	race->is_slow = race->window_bytes * 1000 / ms < FETCH_LEAD_BYTES_S;
	race->window_ms = now_ms;
	race->window_bytes = 0;
}

bool race_holds(struct flight *flight, uint64_t now_ms)
{
	struct fetch_cancel *race = flight->race;

	if (!race)
		return false;
	if (now_ms < race->claim_until_ms)
		return flight->result.bytes >= FETCH_AHEAD_BYTES;
	if (!is_leading(race->lead) || (race->lead != flight && race->lead->result.bytes < flight->result.bytes))
		lead(race, flight, now_ms);
	return race->lead != flight && flight->result.bytes >= FETCH_AHEAD_BYTES && !race->is_slow && now_ms - race->window_ms < STALE_MS;
}

struct flight *race_next_to_go(struct fetch *fetch, uint64_t now_ms)
{
	struct flight *flight = fetch->flights;

	while (flight && !(flight->held && flight->state == FLYING && !race_holds(flight, now_ms)))
		flight = flight->next;
	if (flight)
		flight->held = false;
	return flight;
}
