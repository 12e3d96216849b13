"""A Cloud TPU VM that is waited for in the queue of requests, or several.

The request and the machine have the same name; several machines, each a slice, are
called so too, with -0, -1 and so on after it. When a Spot machine is preempted
its request is over too (SUSPENDED): both are deleted and asked for again.
"""

import dataclasses
import time
from typing import Any

from rest_jax.launch import commands
from rest_jax.launch.targets import tpu_vm

# Of the request or of its machine, once it was taken away.
_OVER = ('SUSPENDED', 'PREEMPTED', 'TERMINATED')


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueuedResource(tpu_vm.TpuVm):
  """A run on TPU VMs that a queued resource brings.

  Attributes:
    num_slices: how many TPU VMs of the type, which the data-centre's network
      connects.
  """

  num_slices: int = 1

  @property
  def machines(self) -> tuple[tpu_vm.Machine, ...]:
    if self.num_slices == 1:
      return (self.machine,)
    return tuple(
      dataclasses.replace(self.machine, name=f'{self.machine.name}-{number}')
      for number in range(self.num_slices)
    )

  def request(self) -> commands.Command:
    """Returns the command that asks for the machine."""
    machine = self.machine
    machine.check_complete()
    nodes = [f'--node-id={machine.name}']
    if self.num_slices > 1:
      nodes = [
        f'--node-count={self.num_slices}',
        f'--node-prefix={machine.name}',
      ]
    return machine.gcloud(
      'queued-resources',
      'create',
      machine.name,
      *nodes,
      f'--accelerator-type={machine.accelerator_type}',
      f'--runtime-version={machine.runtime_version}',
      *(['--spot'] if machine.spot else []),
    )

  def describe(self) -> commands.Command:
    """Returns the command that prints the request's state."""
    return self.machine.gcloud(
      'queued-resources', 'describe', self.machine.name, '--format=json'
    )

  def deletion(self) -> commands.Command:
    """Returns the command that deletes the request and its machines."""
    return self.machine.gcloud(
      'queued-resources', 'delete', self.machine.name, '--force'
    )

  def acquire(self) -> dict[str, Any]:
    """Waits until the request is granted, making it if need be."""
    machine = self.machine
    last = None
    while True:
      found = machine.found(self.describe())
      state = found['state']['state'] if found else ''
      if state == 'ACTIVE':
        nodes = [each.found(each.describe()) for each in self.machines]
        state = next(
          (
            node['state'] if node else 'ACTIVE without its TPU VM'
            for node in nodes
            if not node or node['state'] != tpu_vm.READY
          ),
          tpu_vm.READY,
        )
        if state == tpu_vm.READY:
          return {
            'networkEndpoints': [
              worker
              for node in nodes
              if node
              for worker in node['networkEndpoints']
            ]
          }
      if state == 'FAILED':
        assert found is not None
        raise commands.LaunchError(
          f'the request {machine.name} failed: {found["state"]}. Delete it: '
          f'{self.deletion().text()}'
        )
      if state and state != last:
        commands.say(f'{machine.name} is {state}')
      last = state
      if state in _OVER:
        commands.run(self.deletion(), machine.command_timeout)
      if not state or state in _OVER:
        commands.run(self.request(), machine.command_timeout)
      else:
        time.sleep(machine.poll_seconds)

  def _plan_machine(self) -> list[str]:
    return [
      '# The request, until it is ACTIVE:',
      self.describe().text(),
      '# If there is none:',
      self.request().text(),
      '# After a preemption (SUSPENDED), before it is made again:',
      self.deletion().text(),
      '# Its TPU VM:' if self.num_slices == 1 else '# Its TPU VMs:',
      *(machine.describe().text() for machine in self.machines),
    ]
