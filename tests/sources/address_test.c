// SPDX-License-Identifier: Apache-2.0
#include "sources/address.h"

#include <criterion/criterion.h>

Test(address_host_is_private, sees_every_way_to_write_a_private_address)
{
	static const char *const hosts[] = {"127.0.0.1", "127.1", "0x7f000001", "2130706433", "10.1.2.3", "172.16.0.1", "172.31.255.255",
		"192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "[::1]", "::1", "[::]",
		"[fe80::1%25eth0]", "[fd00::1]", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
		"[ff02::1]", "localhost", "LOCALHOST.", "a.localhost"};

	for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++)
		cr_assert(address_host_is_private(hosts[i]), "%s", hosts[i]);
}

Test(address_host_is_private, lets_public_addresses_and_names_pass)
{
	static const char *const hosts[] = {"8.8.8.8", "172.15.0.1", "172.32.0.1", "192.169.0.1", "100.128.0.1", "[2606:4700::1111]",
		"[64:ff9b::808:808]", "packages.example.org", "localhost.example.org", "10.example.org", ""};

	for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++)
		cr_assert_not(address_host_is_private(hosts[i]), "%s", hosts[i]);
}
