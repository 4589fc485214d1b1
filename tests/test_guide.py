"""The lines and commands that make a recommendation."""

from typing import Any

from reports.guide import Proposal, write_commands, write_lines

MASTER = """\
smtp       inet  n       -       y       -       -       smtpd
amavisfeed unix  -       -       n       -       2       lmtp
    -o lmtp_data_done_timeout=1200
    -o lmtp_send_xforward_command=yes
127.0.0.1:10025 inet n   -       n       -       -       smtpd
    -o content_filter=
"""


def proposal(**changes: Any) -> Proposal:
    return Proposal(
        **{"feed_processes": 3, "filter_servers": 3, "feed_options": {}, "amavis": {}, "master_cf": MASTER, **changes}
    )


def test_line_of_master_cf_keeps_what_the_service_has() -> None:
    assert write_lines(proposal(feed_options={"lmtp_discard_lhlo_keywords": "pipelining"})) == [
        "# master.cf",
        "amavisfeed unix - - n - 3 lmtp",
        "    -o lmtp_data_done_timeout=1200",
        "    -o lmtp_send_xforward_command=yes",
        "    -o lmtp_discard_lhlo_keywords=pipelining",
        "# amavisd.conf",
        "$max_servers = 3;",
    ]


def test_without_a_known_master_cf_the_guide_is_followed() -> None:
    lines = write_lines(proposal(master_cf=""))

    assert lines[1] == "amavisfeed unix - - n - 3 lmtp"
    assert "    -o lmtp_data_done_timeout=1200" in lines


def test_destination_limit_is_raised_only_where_it_is_in_the_way() -> None:
    low = proposal(feed_processes=30, destination_concurrency_limit=20)

    assert "amavisfeed_destination_concurrency_limit = 30" in write_lines(low)
    assert "postconf -e amavisfeed_initial_destination_concurrency=30" in write_commands(low)
    assert "# main.cf" not in write_lines(proposal(destination_concurrency_limit=20))


def test_commands_name_the_instance_and_reload_both_daemons() -> None:
    commands = write_commands(
        proposal(
            config_directory="/etc/postfix-2", amavis={"max_requests": 100, "x": "it's"}, feed_options={"a": "b c"}
        )
    )

    assert commands == [
        "postconf -c /etc/postfix-2 -F 'amavisfeed/unix/process_limit=3'",
        "postconf -c /etc/postfix-2 -P 'amavisfeed/unix/a=b c'",
        "# in amavisd's configuration: $max_servers = 3; $max_requests = 100; $x = 'it\\'s';",
        "amavisd reload",
        "postfix -c /etc/postfix-2 reload",
    ]


def test_narrow_reinjection_is_widened() -> None:
    narrow = proposal(filter_servers=8, reinjection_processes=5, reinjection="127.0.0.1:10025/inet")

    assert "postconf -F 127.0.0.1:10025/inet/process_limit=-" in write_commands(narrow)
    assert not any("10025" in line for line in write_commands(proposal(reinjection_processes=5)))
