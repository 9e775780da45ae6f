"""What has gone wrong in credit systems in the field, and the checks that notice it."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["COVERED_ELSEWHERE", "FAILURE_MODES"]

#: Failure mode -> names of the checks that fail where a store has it.
FAILURE_MODES: Mapping[str, tuple[str, ...]] = {
    "concurrent duplicates are charged twice on a team's pool": ("check_one_key_of_64_callers_on_a_team_pool",),
    "the same key with another amount replays as success": (
        "check_charge_happens_once_per_key",
        "check_deduct_of_another_amount_is_a_mismatch",
    ),
    "a key of one kind of movement replays as another": ("check_key_is_scoped_to_the_kind_of_movement",),
    "a key or a team is smuggled in metadata": ("check_metadata_is_plain_data",),
    "a direct charge ignores holds": (
        "check_charge_counts_holds",
        "check_team_charge_counts_holds_and_floor",
    ),
    "a denying cap ignores holds": ("check_cap_counts_spent_and_held",),
    "a member's cap is read before the lock": ("check_64_calls_at_a_member_cap_for_10",),
    "two sweeps take one grant twice": ("check_two_sweeps_take_a_grant_once",),
    "a sweep takes paid credits after the expiring ones were spent": (
        "check_sweep_takes_only_what_is_left_of_a_grant",
        "check_sweeps_beside_spends_lose_nothing",
    ),
    "a sweep takes credits under a hold": ("check_hold_keeps_its_credits_from_the_sweep",),
    "a team's refund lands in the member's wallet": ("check_team_refund_returns_to_the_pool",),
    "a hold that expired makes the work free": (
        "check_deduct_after_grace_is_charged_late",
        "check_deduct_after_the_reaper_is_charged_late",
    ),
    "a plan switch mints a second allowance": ("check_plan_switch_mints_no_second_allowance",),
    "a top-up that is retried credits twice": (
        "check_add_happens_once_per_key",
        "check_one_top_up_of_64_deliveries",
    ),
    "negative usage lowers a bill": (
        "check_bad_amount_leaves_the_reservation_active",
        "check_bad_amounts_are_refused_everywhere",
    ),
    "a price below one credit is truncated to nothing": ("check_fractions_are_refused_and_not_truncated",),
    "replays emit events again": ("check_replays_record_no_event",),
    "a cancelled caller leaks its hold": ("check_cancelled_caller_leaks_no_hold",),
    "a life of -5 seconds or of 60 years is accepted": ("check_ttl_and_grace_are_bounded",),
    "setup() under traffic breaks calls": ("check_setup_under_traffic_breaks_no_call",),
    "two setup() at once deadlock": ("check_two_setups_at_once_end",),
}

#: Failure modes that no check over a harness can provoke, and why.
COVERED_ELSEWHERE: Mapping[str, str] = {
    "a read-only database role can call a function that mints": (
        "roles belong to the database: tests of the SQL stores call every function as each role"
    ),
    "setup() fails because the roles exist already, or because they do not": (
        "roles belong to the database: tests of the migrations start from both kinds of server"
    ),
}
