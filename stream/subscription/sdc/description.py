"""What SDC consumers see of a bed: a device with an alert system, and its place.

ISO/IEEE 11073-10207 (BICEPS) describes what can be (descriptors) apart from what is (states). A bed is a
device whose medical device system has an associated location; each rule of the risk table is an alert
condition with one alert signal, whose presence is that of our alarm. What is about the whole deployment is a
device without a location.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

from sdc11073.definitions_sdc import SdcV1Definitions
from sdc11073.location import SdcLocation
from sdc11073.xml_types import pm_qnames, pm_types

from stream.alarms.conditions import CONDITIONS, Condition
from stream.asking import ANSWER_S
from stream.contract import EVERY_BED, AlarmEvent, AlarmKind, Presence, Priority
from stream.subscription.follow import SERVICE_SILENT
from stream.watch import WORKER_SILENT

CODING_SYSTEM = "urn:x-bedside:alarms"
"""Of the codes of conditions: those of alarm events."""

# Where a public table has the term: DICOM PS3.16, CID 3038, which quotes ISO/IEEE 11073-10101. Context-free
# codes: 65536 times the partition (3, events) and the term.
_MDC = {"asystole": 3 * 65536 + 3076, "atrial-fibrillation": 3 * 65536 + 3128}

_KINDS = {
    AlarmKind.PHYSIOLOGICAL: pm_types.AlertConditionKind.PHYSIOLOGICAL,
    AlarmKind.TECHNICAL: pm_types.AlertConditionKind.TECHNICAL,
}
_PRIORITIES = {
    Priority.HIGH: pm_types.AlertConditionPriority.HIGH,
    Priority.MEDIUM: pm_types.AlertConditionPriority.MEDIUM,
    Priority.LOW: pm_types.AlertConditionPriority.LOW,
    Priority.INFO: pm_types.AlertConditionPriority.NONE,
}
# The first that any of several alarms has is that of their signal.
_PRESENCES = {
    Presence.ON: pm_types.AlertSignalPresence.ON,
    Presence.LATCHED: pm_types.AlertSignalPresence.LATCH,
    Presence.ACKNOWLEDGED: pm_types.AlertSignalPresence.ACK,
}

_TECHNICAL = AlarmKind.TECHNICAL
_OF_DEPLOYMENT = (
    Condition(SERVICE_SILENT, _TECHNICAL, "SERVICE_SILENT", Priority.HIGH),
    Condition(WORKER_SILENT, _TECHNICAL, "WORKER_SILENT", Priority.HIGH),
)


def conditions_of(bed: str) -> tuple[Condition, ...]:
    """Return the conditions that a bed is described with: more may come when they are raised."""
    return _OF_DEPLOYMENT if bed == EVERY_BED else tuple(CONDITIONS.values())


def condition_of(event: AlarmEvent) -> Condition:
    """Return a condition that no table has, as its first event tells it."""
    return Condition(event.rule, event.kind, event.code, event.priority)


class Part(NamedTuple):
    """A descriptor, and the state it begins with."""

    descriptor: Any
    state: Any


ALERTS = "alerts"
"""Handle of the alert system."""
OPERATIONS = "operations"
"""Handle of what keeps the operations (SCO)."""
MESSAGE = "message"
"""Handle of the metric that is the newest message."""


def condition_handle(rule: str) -> str:
    """Return the handle of a rule's alert condition."""
    # Lists of handles are separated by spaces.
    return f"{ALERTS}/{quote(rule)}"


def signal_handle(rule: str) -> str:
    """Return the handle of a rule's alert signal."""
    return f"{condition_handle(rule)}/signal"


def acknowledge_handle(rule: str) -> str:
    """Return the handle of the operation that acknowledges a rule's alarm."""
    return f"{condition_handle(rule)}/acknowledge"


def system_of(bed: str) -> Iterator[Part]:
    """Describe a bed, without its conditions.

    Parameters
    ----------
    bed : str
        `EVERY_BED` for the deployment.

    Yields
    ------
    Part
        Parents before their children.
    """
    system, context, unit, channel = "system", "context", "unit", "channel"
    yield _part(pm_qnames.MdsDescriptor, system, None, Type=_code("MONITOR", "Bedside ECG monitoring"))
    yield _part(pm_qnames.SystemContextDescriptor, context, system)
    if bed != EVERY_BED:
        place = _part(pm_qnames.LocationContextDescriptor, "location", context)
        place.state.Handle = "location/bed"
        place.state.update_from_sdc_location(SdcLocation(bed=bed))
        yield place
    yield _part(pm_qnames.AlertSystemDescriptor, ALERTS, system)
    yield _part(pm_qnames.ScoDescriptor, OPERATIONS, system)
    # BICEPS has no room for words in the state of a condition.
    yield _part(pm_qnames.VmdDescriptor, unit, system)
    yield _part(pm_qnames.ChannelDescriptor, channel, unit)
    yield _part(
        pm_qnames.StringMetricDescriptor,
        MESSAGE,
        channel,
        Type=_code("MESSAGE", "Newest alarm message"),
        # MDC_DIM_DIMLESS.
        Unit=pm_types.CodedValue("262656"),
        MetricCategory=pm_types.MetricCategory.MEASUREMENT,
        MetricAvailability=pm_types.MetricAvailability.INTERMITTENT,
    )


def parts_of(condition: Condition, *, acknowledged: bool) -> Iterator[Part]:
    """Describe a condition, with its signal and how to acknowledge it.

    Parameters
    ----------
    condition : Condition
    acknowledged : bool
        Whether its alarm can be acknowledged.

    Yields
    ------
    Part
    """
    rule = condition.rule
    words = rule.replace("-", " ")
    code = _code(condition.code, words)
    if rule in _MDC:
        code.Translation.append(pm_types.Translation(str(_MDC[rule])))
    yield _part(
        pm_qnames.AlertConditionDescriptor,
        condition_handle(rule),
        ALERTS,
        Type=code,
        Kind=_KINDS[condition.kind],
        Priority=_PRIORITIES[condition.priority],
        DefaultConditionGenerationDelay=condition.delay_s,
    )
    yield _part(
        pm_qnames.AlertSignalDescriptor,
        signal_handle(rule),
        ALERTS,
        ConditionSignaled=condition_handle(rule),
        # Where it is shown: the live page.
        Manifestation=pm_types.AlertSignalManifestation.VIS,
        Latching=condition.latching,
        AcknowledgementSupported=acknowledged,
    )
    if acknowledged:
        yield _part(
            pm_qnames.SetAlertStateOperationDescriptor,
            acknowledge_handle(rule),
            OPERATIONS,
            Type=_code("ACKNOWLEDGE", f"Acknowledge {words}"),
            OperationTarget=signal_handle(rule),
            ModifiableData=["Presence"],
            MaxTimeToFinish=ANSWER_S,
        )


def show(condition: Any, signal: Any, alarms: Collection[AlarmEvent]) -> None:
    """Set the states of a condition and its signal.

    Parameters
    ----------
    condition, signal : state containers
    alarms : collection of AlarmEvent
        The newest transition of each open alarm of the rule: of a bed one at most, of the deployment several.
    """
    present = [alarm for alarm in alarms if alarm.presence is not Presence.LATCHED]
    urgent = min((alarm.priority for alarm in alarms), key=list(Priority).index, default=None)
    condition.Presence = bool(present)
    condition.ActualPriority = None if urgent is None else _PRIORITIES[urgent]
    presences = {alarm.presence for alarm in alarms}
    signal.Presence = next(
        (theirs for ours, theirs in _PRESENCES.items() if ours in presences), pm_types.AlertSignalPresence.OFF
    )


def present(alarms: Collection[AlarmEvent], kind: AlarmKind) -> list[str]:
    """Return the handles of the conditions of a kind that are present, by the open alarms of a bed."""
    rules = {e.rule for e in alarms if e.kind is kind and e.presence is not Presence.LATCHED}
    return [condition_handle(rule) for rule in sorted(rules)]


def _code(code: str, words: str) -> pm_types.CodedValue:
    described = [pm_types.LocalizedText(words, lang="en")]
    return pm_types.CodedValue(code, CODING_SYSTEM, concept_descriptions=described)


def _part(kind: Any, handle: str, parent: str | None, **fields: Any) -> Part:
    model = SdcV1Definitions.data_model
    descriptor = model.get_descriptor_container_class(kind)(handle=handle, parent_handle=parent)
    descriptor.set_source_mds("system")
    for name, value in fields.items():
        setattr(descriptor, name, value)
    state = model.get_state_container_class(descriptor.STATE_QNAME)(descriptor)
    if descriptor.is_operational_descriptor:
        state.OperatingMode = pm_types.OperatingMode.ENABLED
    return Part(descriptor, state)
