// What must exist in Azure before the portal can start machines: a network that lets nothing in and only the portal's
// addresses out, identities, and two roles with exactly the acts that workers/backends/azure.py and azure_aci.py do.
// Deploy it into a resource group that holds the machines of runs and nothing else (docs/how-to/runner-image.md).

targetScope = 'resourceGroup'

@description('Where data may be opened. Custodians name it in their policies.')
param location string = resourceGroup().location

@description('Private addresses of the machines.')
param addressPrefix string = '10.78.0.0/16'

@description('Subnet of confidential VMs.')
param vmSubnetPrefix string = '10.78.0.0/24'

@description('Subnet of confidential container groups.')
param containerSubnetPrefix string = '10.78.1.0/24'

@description('Addresses of the portal and the object store, as CIDRs. Machines reach these by TCP 443 and nothing else.')
@minLength(1)
param portalCidrs array

@description('Name of the container registry in this resource group that holds the runner image; empty for VMs only.')
param registryName string = ''

resource nothingElse 'Microsoft.Network/networkSecurityGroups@2026-03-01' = {
  name: 'strongroom-runs'
  location: location
  properties: {
    securityRules: [
      {
        name: 'portal-out'
        properties: {
          priority: 100
          direction: 'Outbound'
          access: 'Allow'
          protocol: 'Tcp'
          sourceAddressPrefix: '*'
          sourcePortRange: '*'
          destinationAddressPrefixes: portalCidrs
          destinationPortRange: '443'
        }
      }
      {
        name: 'nothing-out'
        properties: {
          priority: 4096
          direction: 'Outbound'
          access: 'Deny'
          protocol: '*'
          sourceAddressPrefix: '*'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '*'
        }
      }
      {
        name: 'nothing-in'
        properties: {
          priority: 4096
          direction: 'Inbound'
          access: 'Deny'
          protocol: '*'
          sourceAddressPrefix: '*'
          sourcePortRange: '*'
          destinationAddressPrefix: '*'
          destinationPortRange: '*'
        }
      }
    ]
  }
}

resource network 'Microsoft.Network/virtualNetworks@2026-03-01' = {
  name: 'strongroom-runs'
  location: location
  properties: {
    addressSpace: {
      addressPrefixes: [
        addressPrefix
      ]
    }
    subnets: [
      {
        name: 'machines'
        properties: {
          addressPrefix: vmSubnetPrefix
          defaultOutboundAccess: false
          networkSecurityGroup: {
            id: nothingElse.id
          }
        }
      }
      {
        name: 'containers'
        properties: {
          addressPrefix: containerSubnetPrefix
          defaultOutboundAccess: false
          networkSecurityGroup: {
            id: nothingElse.id
          }
          delegations: [
            {
              name: 'containers'
              properties: {
                serviceName: 'Microsoft.ContainerInstance/containerGroups'
              }
            }
          ]
        }
      }
    ]
  }
}

// The portal's workers run as this identity. Machines of runs have none, so they can do nothing in this subscription.
resource workers 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: 'strongroom-workers'
  location: location
}

// Container groups fetch the image with this one, which can do nothing else.
resource puller 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: 'strongroom-puller'
  location: location
}

resource machinesRole 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(resourceGroup().id, 'strongroom-machines')
  properties: {
    roleName: 'Strongroom machines (${resourceGroup().name})'
    description: 'Start, see and remove machines of runs. No right to log in, run commands, or read disks.'
    type: 'CustomRole'
    assignableScopes: [
      resourceGroup().id
    ]
    permissions: [
      {
        actions: [
          'Microsoft.Compute/virtualMachines/read'
          'Microsoft.Compute/virtualMachines/write'
          'Microsoft.Compute/virtualMachines/delete'
          'Microsoft.Compute/disks/read'
          'Microsoft.Compute/disks/write'
          'Microsoft.Compute/disks/delete'
          'Microsoft.Compute/galleries/images/versions/read'
          'Microsoft.Network/networkInterfaces/read'
          'Microsoft.Network/networkInterfaces/write'
          'Microsoft.Network/networkInterfaces/delete'
          'Microsoft.Network/networkInterfaces/join/action'
          'Microsoft.ContainerInstance/containerGroups/read'
          'Microsoft.ContainerInstance/containerGroups/write'
          'Microsoft.ContainerInstance/containerGroups/delete'
        ]
        notActions: []
        dataActions: []
        notDataActions: []
      }
    ]
  }
}

resource joinRole 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(resourceGroup().id, 'strongroom-join')
  properties: {
    roleName: 'Strongroom network (${resourceGroup().name})'
    description: 'Put machines into the subnets of runs. No right to change the network.'
    type: 'CustomRole'
    assignableScopes: [
      resourceGroup().id
    ]
    permissions: [
      {
        actions: [
          'Microsoft.Network/virtualNetworks/subnets/join/action'
        ]
        notActions: []
        dataActions: []
        notDataActions: []
      }
    ]
  }
}

resource workersRunMachines 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(resourceGroup().id, workers.id, machinesRole.id)
  properties: {
    roleDefinitionId: machinesRole.id
    principalId: workers.properties.principalId
    principalType: 'ServicePrincipal'
  }
}

resource workersJoinNetwork 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(network.id, workers.id, joinRole.id)
  scope: network
  properties: {
    roleDefinitionId: joinRole.id
    principalId: workers.properties.principalId
    principalType: 'ServicePrincipal'
  }
}

// Managed Identity Operator, on the puller alone: workers may give it to a container group.
resource workersGivePuller 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(puller.id, workers.id, 'give')
  scope: puller
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', 'f1a07417-d97a-45cb-824c-7a7467783830')
    principalId: workers.properties.principalId
    principalType: 'ServicePrincipal'
  }
}

resource registry 'Microsoft.ContainerRegistry/registries@2025-11-01' existing = if (!empty(registryName)) {
  name: registryName
}

// AcrPull, on the one registry.
resource pullerPulls 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(registryName)) {
  name: guid(resourceGroup().id, puller.id, 'pull')
  scope: registry
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '7f951dda-4ed3-4680-a7ca-43fe172d538d')
    principalId: puller.properties.principalId
    principalType: 'ServicePrincipal'
  }
}

output vmSubnet string = '${network.id}/subnets/machines'
output containerSubnet string = '${network.id}/subnets/containers'
output workersIdentity string = workers.id
output workersClientId string = workers.properties.clientId
output pullerIdentity string = puller.id
