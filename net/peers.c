// SPDX-License-Identifier: Apache-2.0
/*
 * Connections a peer: a chained hash table under one lock, touched once when a connection opens and once when it closes.
 * An entry lives while its count is above zero, so the table is as large as the number of connections, which is bounded.
 * Chains are seeded with random bits at creation, so that a peer with many addresses (IPv6) cannot choose one chain.
 */
#include "net/core.h"

#include <sys/random.h>

enum { PEER_BUCKETS = 4096 };

struct peer_entry {
	struct peer_entry *next;
	struct net_peer_key key;
	uint64_t count;
};

struct net_peers {
	pthread_mutex_t lock;
	uint64_t seed;
	struct peer_entry *buckets[PEER_BUCKETS];
};

struct net_peers *net_peers_create(void)
{
	struct net_peers *peers = calloc(1, sizeof(*peers));

	if (!peers)
		return NULL;
	pthread_mutex_init(&peers->lock, NULL);
	if (getrandom(&peers->seed, sizeof(peers->seed), GRND_NONBLOCK) != sizeof(peers->seed))
		peers->seed = (uint64_t)(uintptr_t)peers ^ net_now_ns();
	return peers;
}

void net_peers_destroy(struct net_peers *peers)
{
	if (!peers)
		return;
	for (size_t i = 0; i < PEER_BUCKETS; i++) {
		while (peers->buckets[i]) {
			struct peer_entry *entry = peers->buckets[i];
			peers->buckets[i] = entry->next;
			free(entry);
		}
	}
	pthread_mutex_destroy(&peers->lock);
	free(peers);
}

/* The place that points at the key's entry, or at the NULL where it would go. Under the lock. */
static struct peer_entry **peer_find(struct net_peers *peers, const struct net_peer_key *key)
{
	uint64_t hash = peers->seed;

	/* splitmix64's finalizer on each word. */
	for (unsigned i = 0; i < 2; i++) {
		hash ^= key->bytes[i];
		hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9u;
		hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebu;
		hash ^= hash >> 31;
	}
	struct peer_entry **at = &peers->buckets[hash % PEER_BUCKETS];
	while (*at && ((*at)->key.bytes[0] != key->bytes[0] || (*at)->key.bytes[1] != key->bytes[1]))
		at = &(*at)->next;
	return at;
}

bool net_peers_add(struct net_peers *peers, const struct net_peer_key *key, uint64_t limit)
{
	bool added = false;

	pthread_mutex_lock(&peers->lock);
	struct peer_entry **at = peer_find(peers, key);
	if (!*at) {
		*at = calloc(1, sizeof(**at));
		if (*at)
			(*at)->key = *key;
	}
	if (*at && (*at)->count < limit) {
		(*at)->count++;
		added = true;
	}
	pthread_mutex_unlock(&peers->lock);
	return added;
}

void net_peers_remove(struct net_peers *peers, const struct net_peer_key *key)
{
	pthread_mutex_lock(&peers->lock);
	struct peer_entry **at = peer_find(peers, key);
	if (*at && --(*at)->count == 0) {
		struct peer_entry *entry = *at;
		*at = entry->next;
		free(entry);
	}
	pthread_mutex_unlock(&peers->lock);
}
