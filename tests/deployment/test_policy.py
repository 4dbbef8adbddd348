"""What a hospital agrees to, and what the file that says so may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedlens.deployment.policy import POLICY_TEXT, Policy, check_policy, load_policy
from fedlens.errors import PolicyError, SettingsError
from fedlens.study import Study

PRINT = "0123abcd" * 8


def make_study(name: str = "chest-2", rounds: int = 50, *, advice: bool = True) -> Study:
    return Study.model_validate(
        {
            "name": name,
            "data": {"folder": "."},
            "federation": {"rounds": rounds},
            "decision": {"federated": advice},
        }
    )


def check(policy: Policy, **given: Any) -> None:
    """Hold a study against a policy; by default one that a hospital's own file allows."""
    asked = {"study": make_study(), "fingerprint": PRINT, "fewest": 3, "sealed": True, **given}
    check_policy(policy, asked["study"], asked["fingerprint"], fewest=asked["fewest"], sealed=asked["sealed"])


def test_the_file_that_a_hospital_gets_says_what_holds_without_it(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY_TEXT)
    assert load_policy(path) == Policy()
    for key in Policy.model_fields:
        assert f"\n{key} = " in POLICY_TEXT


@pytest.mark.parametrize("missing", list(Policy.model_fields))
def test_a_rule_that_is_left_out_keeps_its_default(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(
        "\n".join(line for line in POLICY_TEXT.splitlines() if not line.startswith(f"{missing} ="))
    )
    assert load_policy(path) == Policy()


ALLOWED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"studies": ["chest-*"]}, {}),
    ({"studies": ["other", "chest-?"]}, {}),
    ({"studies": ["chest-2"]}, {}),
    ({"models": [PRINT]}, {}),
    ({"models": ["ffff", PRINT[:6]]}, {}),
    ({"minimum_hospitals": 5}, {"fewest": 5}),
    ({"minimum_hospitals": 1, "sealing": "optional"}, {"sealed": False, "fewest": 1}),
    ({"sealing": "optional"}, {"sealed": True}),
    ({"most_rounds": 50}, {}),
    ({}, {"study": make_study(rounds=200)}),
    ({"advice": "refused"}, {"study": make_study(advice=False)}),
]
REFUSED: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({"studies": []}, {}, "studies named chest-2", "studies"),
    ({"studies": ["Chest-*", "est", ""]}, {}, "studies named chest-2", "studies"),
    ({"models": []}, {}, f"fingerprint {PRINT[:12]}", "models"),
    ({"models": ["", PRINT[1:], PRINT + "0", "0123?bcd"]}, {}, "does not train networks", "models"),
    ({"minimum_hospitals": 4}, {"fewest": 3}, "wants 4 hospitals .* may sum 3", "minimum_hospitals"),
    ({}, {"fewest": 2}, "wants 3 hospitals .* may sum 2", "minimum_hospitals"),
    ({}, {"sealed": False}, "sends nothing in the clear", "sealing"),
    ({"most_rounds": 49}, {}, "agrees to 49 rounds, and this study has 50", "most_rounds"),
    ({}, {"study": make_study(rounds=201)}, "agrees to 200 rounds", "most_rounds"),
    ({"advice": "refused"}, {}, r"nothing for advice.* decision\.federated = true", "advice"),
]


@pytest.mark.parametrize(("rules", "asked"), ALLOWED)
def test_a_study_within_every_rule_is_allowed(rules: dict[str, Any], asked: dict[str, Any]) -> None:
    check(Policy.model_validate(rules), **asked)


@pytest.mark.parametrize(("rules", "asked", "words", "key"), REFUSED)
def test_each_rule_refuses_and_is_named(
    rules: dict[str, Any], asked: dict[str, Any], words: str, key: str
) -> None:
    with pytest.raises(PolicyError, match=words) as caught:
        check(Policy.model_validate(rules), **asked)
    assert f"about {key} in its policy.toml" in caught.value.fix
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('study = ["*"]', r"unknown key study; did you mean studies\?"),
        ("minimum_hospital = 3", r"did you mean minimum_hospitals\?"),
        ("colour = 1", r"unknown key colour\."),
        ('sealing = "never"', "sealing = 'never'"),
        ("minimum_hospitals = 0", "minimum_hospitals = 0"),
        ("most_rounds = 0", "most_rounds = 0"),
        ("advice = false", "advice = False"),
        ('studies = "*"', r"studies = '\*'"),
        ("models = [1]", r"models.0 = 1"),
        ("studies = [", "not valid TOML"),
    ],
)
def test_a_file_that_is_not_understood_allows_nothing(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=words) as caught:
        load_policy(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_allows_nothing(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"No policy file .*without it nothing is agreed to"):
        load_policy(tmp_path / "policy.toml")


def test_what_is_no_text_allows_nothing(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="not valid TOML"):
        load_policy(tmp_path / "policy.toml")
    with pytest.raises(SettingsError, match="Cannot read the policy file"):
        load_policy(tmp_path)
