from pathlib import Path

import pytest

from loadgen.errors import ProfileError
from loadgen.profile import SIZE_MIXES, list_profiles, load_profile, parse_profile

STEP = '\n[[step]]\nconcurrency = 1\nhold = "5s"\n'


def test_every_shipped_profile_is_valid_and_says_what_it_is_for() -> None:
    names = list(list_profiles())

    assert {"quick", "steps", "soak"} <= set(names)
    for name in names:
        assert len(load_profile(name)[2].about) > 20


def test_steps_climbs_from_1_to_32_sessions() -> None:
    concurrency = [step.concurrency for step in load_profile("steps")[2].step]

    assert concurrency[0] == 1
    assert concurrency[-1] == 32
    assert concurrency == sorted(concurrency)


def test_defaults_are_filled_in_and_text_becomes_seconds() -> None:
    got = parse_profile('about = "x"\n[timing]\nwarm_up = "1.5min"' + STEP, "p.toml")

    assert got.timing.warm_up_s == 90.0
    assert got.pacing.kind == "delivered"
    assert got.message.size_shares == ((4096, 1.0),)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        pytest.param(
            'about = "x"\n[timing]\nwarmup = "3s"' + STEP,
            "p.toml: unknown key timing.warmup; did you mean timing.warm_up?",
            id="misspelt-key-names-its-neighbour",
        ),
        pytest.param(
            'about = "x"\n[[step]]\nconcurency = 3\nhold = "5s"\n',
            "p.toml: unknown key step[1].concurency; did you mean step[1].concurrency?",
            id="misspelt-key-in-a-step",
        ),
        pytest.param(
            'about = "x"\n[colour]\nred = 1' + STEP,
            "p.toml: unknown key colour; remove it",
            id="unknown-table",
        ),
        pytest.param(
            'about = "x"\n[[step]]\nconcurrency = 1\nhold = "90"\n',
            'p.toml: step[1].hold: got "90", want a duration with a unit (ms, s, min, h), such as "90s"',
            id="missing-unit",
        ),
        pytest.param(
            'about = "x"\n[[step]]\nconcurrency = 0\nhold = "5s"\n',
            "p.toml: step[1].concurrency: got 0, want at least 1",
            id="zero-sessions",
        ),
        pytest.param(
            'about = "x"\n[[step]]\nconcurrency = -4\nhold = "5s"\n',
            "p.toml: step[1].concurrency: got -4, want at least 1",
            id="negative-sessions",
        ),
        pytest.param(
            'about = "x"\n[[step]]\nconcurrency = 1\nhold = "0s"\n',
            "p.toml: step[1].hold: got",
            id="empty-hold",
        ),
        pytest.param('about = "x"\nstep = []\n', "p.toml: step: got none, want at least one", id="no-steps"),
        pytest.param("step = []\n", "p.toml: about: missing; it is required", id="about-is-required"),
        pytest.param(
            'about = "x"\n[pacing]\nkind = "rate"' + STEP,
            'step[1].rate: missing; pacing.kind = "rate" needs it',
            id="rate",
        ),
        pytest.param(
            'about = "x"\n[message]\nsize = "4KiB"\nmix = "specmail2001"' + STEP,
            "got both size and mix, want one of them",
            id="two-sizes",
        ),
        pytest.param(
            'about = "x"\n[message]\nmix = "spec"' + STEP,
            'got "spec", want one of specmail2001',
            id="unknown-mix",
        ),
        pytest.param(
            'about = "x"\n[message]\nrecipient_domain = "a b\\r\\n"' + STEP,
            "want a domain name",
            id="injected-line",
        ),
        pytest.param("about = ", "p.toml: not valid TOML", id="not-toml"),
        pytest.param(
            'about = "x"\n[[step]]\nconcurrency = 1\nhold = "9s"\nhold_limit = "3s"',
            "step[1]: hold_limit: got 3 s, want at least hold, 9 s",
            id="limit-below-hold",
        ),
        pytest.param(
            'about = "x"\n[processes]\nlevels = [1]' + STEP, "a sweep makes its own steps", id="steps-and-sweep"
        ),
        pytest.param('about = "x"\n[processes]\n', "want one: levels = [1, 2, 4]", id="neither-levels-nor-search"),
        pytest.param('about = "x"\n[processes]\nlevels = [2, 2]', "different process counts", id="level-twice"),
        pytest.param(
            'about = "x"\n[processes]\nlevels = [0]', "processes.levels[1]: got 0, want at least 1", id="level-zero"
        ),
        pytest.param('about = "x"\n[processes]\nlevel = [1]', "did you mean processes.levels?", id="level-misspelt"),
        pytest.param(
            'about = "x"\n[variants]' + STEP, "variants: only a sweep tries them", id="variants-without-sweep"
        ),
        pytest.param(
            'about = "x"\n[processes]\nlevels = [1]\n[pacing]\nkind = "accepted"',
            "a sweep keeps the queue full by itself",
            id="sweep-with-pacing",
        ),
        pytest.param(
            'about = "x"\n[processes]\nlevels = [1]\n[variants.own.nothing]',
            "changes nothing; give feed, amavis or spare",
            id="variant-without-change",
        ),
        pytest.param(
            'about = "x"\n[processes]\nlevels = [1]\n[variants.own.a]\namavis = { max_servers = 3 }',
            "the sweep and the chain need this one",
            id="variant-of-the-level-itself",
        ),
        pytest.param(
            'about = "x"\n[processes]\nlevels = [1]\n[variants.own.a]\nfeed = { "x\\ny" = "1" }',
            "variants.own.a.feed",
            id="option-with-a-line-end",
        ),
    ],
)
def test_bad_profile_says_where_what_and_what_to_do(text: str, want: str) -> None:
    with pytest.raises(ProfileError) as caught:
        parse_profile(text, "p.toml")

    assert want in str(caught.value)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(ProfileError) as caught:
        parse_profile('about = "x"\n[[step]]\nconcurrency = 0\nhold = "90"\n', "p.toml")

    assert len(str(caught.value).splitlines()) == 2


def test_unknown_profile_name_suggests_the_nearest() -> None:
    with pytest.raises(ProfileError, match='"quik": no such profile; did you mean "quick"'):
        load_profile("quik")


def test_path_to_a_missing_file_names_the_shipped_profiles(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="No such file or directory; shipped profiles are"):
        load_profile(str(tmp_path / "none.toml"))


def test_own_file_works_like_a_shipped_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('about = "mine"' + STEP)

    name, _, profile = load_profile(str(path))

    assert name == "mine"
    assert profile.about == "mine"


def test_workload_hash_changes_with_the_load_and_not_with_the_words() -> None:
    base = parse_profile('about = "x"' + STEP, "p")

    assert parse_profile('about = "other words"' + STEP, "p").workload_hash == base.workload_hash
    assert parse_profile('about = "x"\nseed = 2' + STEP, "p").workload_hash != base.workload_hash


def test_variants_of_ones_own_keep_what_was_written() -> None:
    profile = parse_profile(
        """
about = "x"
[processes]
search = "auto"
[variants.own.more-requests]
amavis = { max_requests = 100 }
feed = { lmtp_connection_cache_on_demand = "no" }
spare = 2
""",
        "p.toml",
    )

    assert profile.variants is not None
    own = profile.variants.own["more-requests"]
    assert (own.amavis, own.feed, own.spare) == ({"max_requests": 100}, {"lmtp_connection_cache_on_demand": "no"}, 2)
    assert profile.variants.known


def test_specmail_mix_has_the_published_mean() -> None:
    shares = SIZE_MIXES["specmail2001"]
    mean = sum(size * share for size, share in shares) / sum(share for _, share in shares)

    assert sum(share for _, share in shares) == pytest.approx(100.0)
    assert mean == pytest.approx(24_530, rel=0.001)  # SPECmail2001 white paper: 24.53 KB
